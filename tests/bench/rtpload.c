/* RTP load and RTP judge of `make bench`: many G.711 mu-law legs in one process with one clock.
 *
 * Every leg owns one UDP port (as a phone does). It sends 50 packets/s and judges what comes back: loss by sequence
 * number, jitter (RFC 3550 A.8), audible time, whose tone is heard, mouth-to-ear delay, and it can record and speak.
 * It knows no SIP: a leg of a `latch` group learns its peer from the first packet it hears, others from `peer` lines.
 *
 * Tones: leg k sends the sum of one low (400..1850 Hz) and one high (1900..3350 Hz) tone of a 50 Hz raster: 900 pairs.
 * 160 samples at 8 kHz hold whole periods of every tone, so a frame is one constant 160 bytes, and a 160-point DFT of
 * any received frame separates all pairs exactly. A third tone in a frame is another call's: the calls have mixed.
 *
 * Arrival times are the kernel's (SO_TIMESTAMPNS), so they do not depend on when this process was scheduled.
 * The send wheel has 20 slots of 1 ms; how late the wheel ran is reported, so a starved generator can be told
 * from a slow server.
 *
 * usage: rtpload SECONDS GROUP...      GROUP = name,address,first_port,step,count,first_tone,digit_after_ms,event_pt,
 *                                              quiet_stop_ms,latch(0|1)
 * stdin, one command a line (all take effect at once):
 *   peer PORT ADDR RPORT EVENT_PT   start a leg towards that address
 *   bye PORT                        end a leg and report it
 *   window begin | window end       the steady window: counters named win_* count only inside it
 *   marks on|off                    legs whose pair is known send bursts instead of tones, to measure delay
 *   say PORT FILE                   the leg sends this raw mu-law file once, then silence
 *   tone PORT                       the leg sends its tones again
 *   record PORT FILE SECONDS        what the leg hears from now on goes into this raw mu-law file
 *   tapes                           write all recordings now
 *   report                          one line for every active leg, then {"kind":"reported"}
 *   quit
 * stdout: JSON lines {"kind": "leg" | "reported" | "ready" | "health"}.
 * It ends by itself after SECONDS, on `quit` and at the end of stdin.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    FRAME = 160,        /* samples and bytes of 20 ms */
    HEADER = 12,        /* RTP header without extensions */
    SLOTS = 20,         /* send wheel, 1 ms each */
    LOW_TONES = 30,
    HIGH_TONES = 30,
    BINS = LOW_TONES + HIGH_TONES,
    ANALYSE_EVERY = 5,  /* one frame of five goes through the DFT */
    LOCK_FRAMES = 3,    /* equal pairs in a row before a leg's pair counts as known */
    BATCH = 16,         /* datagrams a recvmmsg */
    MARK_FRAMES = 47,   /* frames between two bursts: 0.94 s */
    MARK_RING = 8,
    MARK_MAX = 64,
    EVENT_FRAMES = 5,   /* 100 ms of key press */
    EVENT_ENDS = 3,     /* RFC 4733 2.5.1.4: the end packet three times */
    IDLE_END_MS = 1000, /* a latched leg that hears nothing for so long has ended */
    MAX_GROUPS = 8,
};
#define NS_MS 1000000LL
#define AUDIBLE_RMS 100.0f  /* -50 dBFS */

enum send_mode { SEND_SILENCE, SEND_TONE, SEND_MARKS, SEND_SAY };

struct group {
    char name[16];
    struct in_addr address;
    int first_port, step, count, first_tone, digit_after_ms, event_pt, quiet_stop_ms, latch;
};

struct leg {
    int fd, port, tone, event_pt, active, have_peer;
    struct group *group;
    struct sockaddr_in peer;
    unsigned char frame[FRAME]; /* its own tone pair */
    /* sending */
    enum send_mode mode;
    uint32_t tx_ssrc, tx_ts;
    uint16_t tx_seq;
    unsigned char *say;
    long say_len, say_at;
    int mark_countdown, mark_count;
    int64_t mark_ns[MARK_RING];
    int digit_step;             /* -1 not yet, 0.. packets sent, EVENT_FRAMES+EVENT_ENDS done */
    uint32_t digit_ts;
    int64_t digit_due_ns, digit_start_ns, digit_end_ns;
    uint64_t sent;
    /* receiving */
    int64_t start_ns, last_ns, first_audible_ns;
    uint32_t rx_ssrc, ext_seq, base_seq, last_ts;
    int have_seq, ssrc_changes;
    int64_t last_transit;
    uint64_t received, duplicates;
    double jitter;              /* in samples */
    float audible_ms;
    int64_t max_gap_ns;
    unsigned frame_count;
    /* pair */
    int candidate, candidate_run, pair;
    unsigned own, foreign, dirty, silent;
    int foreign_pair, stray;
    /* steady window */
    int in_window;
    uint32_t win_base_seq, win_top_seq;
    uint64_t win_received;
    unsigned win_own, win_foreign, win_dirty, win_silent;
    double win_jitter_max;
    int64_t win_max_gap_ns;
    /* delay */
    float delay_ms[MARK_MAX];
    int delay_count, marks_sent;
    int16_t quiet_run;
    /* recording */
    unsigned char *tape;
    long tape_len;
    uint32_t tape_ts0;
    int tape_started;
    char tape_path[256];
};

static struct group groups[MAX_GROUPS];
static int group_count;
static struct leg *legs;
static int leg_count;
static struct leg *by_port[65536];
static struct leg *by_tone[LOW_TONES * HIGH_TONES];
static float linear[256];
static float basis[2 * BINS][FRAME] __attribute__((aligned(64)));
static int window_open, marks_on;
static int64_t late_max_ns, win_late_max_ns;
static uint64_t late_ticks, win_late_ticks, send_errors, packets_in, packets_out;

static int64_t wall_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t); /* the clock of SO_TIMESTAMPNS */
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "rtpload: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(2);
}

/* ITU-T G.711 mu-law. */
static unsigned char to_ulaw(int sample) {
    int sign = sample < 0 ? 0x80 : 0, exponent = 7, mask = 0x4000;
    if (sample < 0) sample = -sample;
    if (sample > 32635) sample = 32635;
    sample += 0x84;
    while (exponent > 0 && !(sample & mask)) exponent--, mask >>= 1;
    return (unsigned char)~(sign | (exponent << 4) | ((sample >> (exponent + 3)) & 0x0F));
}

static int from_ulaw(unsigned char byte) {
    byte = (unsigned char)~byte;
    int value = (((byte & 0x0F) << 3) + 0x84) << ((byte >> 4) & 7);
    return (byte & 0x80) ? 0x84 - value : value - 0x84;
}

static double low_hz(int i) { return 400 + 50 * i; }
static double high_hz(int i) { return 1900 + 50 * i; }

static void make_tables(void) {
    for (int i = 0; i < 256; i++) linear[i] = (float)from_ulaw((unsigned char)i);
    for (int b = 0; b < BINS; b++)
        for (int n = 0; n < FRAME; n++) {
            double hz = b < LOW_TONES ? low_hz(b) : high_hz(b - LOW_TONES), phase = 2 * M_PI * hz * n / 8000;
            basis[2 * b][n] = (float)cos(phase);
            basis[2 * b + 1][n] = (float)sin(phase);
        }
}

static void make_frame(struct leg *leg) {
    double low = low_hz(leg->tone % LOW_TONES), high = high_hz(leg->tone / LOW_TONES);
    for (int n = 0; n < FRAME; n++)
        leg->frame[n] = to_ulaw((int)(4000 * sin(2 * M_PI * low * n / 8000) + 4000 * sin(2 * M_PI * high * n / 8000)));
}

static void begin_leg(struct leg *leg, const struct sockaddr_in *peer, int event_pt) {
    int fd = leg->fd, port = leg->port, tone = leg->tone;
    struct group *group = leg->group;
    unsigned char frame[FRAME];
    memcpy(frame, leg->frame, FRAME);
    free(leg->tape);
    free(leg->say);
    memset(leg, 0, sizeof *leg);
    memcpy(leg->frame, frame, FRAME);
    leg->fd = fd, leg->port = port, leg->tone = tone, leg->group = group;
    leg->peer = *peer;
    leg->active = leg->have_peer = 1;
    leg->event_pt = event_pt;
    leg->mode = group->first_tone >= 0 ? SEND_TONE : SEND_SILENCE;
    leg->tx_ssrc = (uint32_t)random();
    leg->tx_seq = (uint16_t)random();
    leg->tx_ts = (uint32_t)random();
    leg->digit_step = -1;
    leg->pair = leg->candidate = leg->foreign_pair = leg->stray = -1;
    leg->start_ns = leg->last_ns = wall_ns();
    leg->mark_countdown = 1 + (port / 2) % MARK_FRAMES;
    leg->in_window = 0;
}

static void print_leg(struct leg *leg, int ended) {
    long expected = leg->have_seq ? (long)(leg->ext_seq - leg->base_seq) + 1 : 0;
    long win_expected = leg->in_window ? (long)(leg->win_top_seq - leg->win_base_seq) : 0;
    struct leg *pair = leg->pair >= 0 ? by_tone[leg->pair] : NULL;
    printf("{\"kind\":\"leg\",\"group\":\"%s\",\"port\":%d,\"ended\":%s,\"sent\":%llu,\"received\":%llu,"
           "\"lost\":%ld,\"duplicates\":%llu,\"jitter_ms\":%.3f,\"max_gap_ms\":%.2f,\"ssrc_changes\":%d,"
           "\"audible_ms\":%.0f,\"first_audible_ms\":%.2f,\"digit_start_ns\":%lld,\"digit_end_ns\":%lld,"
           "\"pair_port\":%d,\"own\":%u,\"foreign\":%u,\"foreign_pair\":%d,\"dirty\":%u,\"silent\":%u,",
           leg->group->name, leg->port, ended ? "true" : "false", (unsigned long long)leg->sent,
           (unsigned long long)leg->received, expected - (long)leg->received, (unsigned long long)leg->duplicates,
           leg->jitter / 8, leg->max_gap_ns / 1e6, leg->ssrc_changes, leg->audible_ms,
           leg->first_audible_ns ? (leg->first_audible_ns - leg->start_ns) / 1e6 : -1.0,
           (long long)leg->digit_start_ns, (long long)leg->digit_end_ns, pair ? pair->port : -1, leg->own, leg->foreign,
           leg->foreign_pair, leg->dirty, leg->silent);
    printf("\"in_window\":%s,\"win_received\":%llu,\"win_lost\":%ld,\"win_own\":%u,\"win_foreign\":%u,"
           "\"win_dirty\":%u,\"win_silent\":%u,\"win_jitter_ms\":%.3f,\"win_max_gap_ms\":%.2f,\"marks_sent\":%d,"
           "\"delay_ms\":[",
           leg->in_window ? "true" : "false", (unsigned long long)leg->win_received,
           win_expected - (long)leg->win_received, leg->win_own, leg->win_foreign, leg->win_dirty, leg->win_silent,
           leg->win_jitter_max / 8, leg->win_max_gap_ns / 1e6, leg->marks_sent);
    for (int i = 0; i < leg->delay_count; i++) printf("%s%.2f", i ? "," : "", leg->delay_ms[i]);
    printf("]}\n");
}

static void save_tape(struct leg *leg) {
    if (!leg->tape) return;
    FILE *file = fopen(leg->tape_path, "wb");
    if (!file || fwrite(leg->tape, 1, (size_t)leg->tape_len, file) != (size_t)leg->tape_len || fclose(file))
        die("cannot write %s: %s", leg->tape_path, strerror(errno));
    free(leg->tape);
    leg->tape = NULL;
}

static void end_leg(struct leg *leg) {
    if (!leg->active) return;
    save_tape(leg);
    print_leg(leg, 1);
    leg->active = 0;
}

static void put32(unsigned char *at, uint32_t value) {
    value = htonl(value);
    memcpy(at, &value, 4);
}

static void send_leg(struct leg *leg, int64_t now) {
    unsigned char packet[HEADER + FRAME];
    size_t size = sizeof packet;
    if (now - leg->last_ns > IDLE_END_MS * NS_MS && leg->group->latch) {
        end_leg(leg);
        return;
    }
    if (now - leg->last_ns > leg->group->quiet_stop_ms * NS_MS && leg->group->latch) return;
    packet[0] = 0x80;
    packet[1] = 0;
    packet[2] = (unsigned char)(leg->tx_seq >> 8);
    packet[3] = (unsigned char)leg->tx_seq;
    put32(packet + 4, leg->tx_ts);
    put32(packet + 8, leg->tx_ssrc);
    unsigned char *audio = packet + HEADER;
    if (leg->digit_step < 0 && leg->digit_due_ns && now >= leg->digit_due_ns) {
        leg->digit_step = 0;
        leg->digit_ts = leg->tx_ts;
        leg->digit_start_ns = now;
    }
    if (leg->digit_step >= 0 && leg->digit_step < EVENT_FRAMES + EVENT_ENDS) { /* RFC 4733 2.3 */
        int end = leg->digit_step >= EVENT_FRAMES, frames = end ? EVENT_FRAMES : leg->digit_step + 1;
        packet[1] = (unsigned char)((leg->digit_step == 0 ? 0x80 : 0) | leg->event_pt);
        put32(packet + 4, leg->digit_ts);
        audio[0] = 1; /* key 1 */
        audio[1] = (unsigned char)((end ? 0x80 : 0) | 10);
        audio[2] = (unsigned char)((frames * FRAME) >> 8);
        audio[3] = (unsigned char)(frames * FRAME);
        size = HEADER + 4;
        if (leg->digit_step == EVENT_FRAMES) leg->digit_end_ns = now;
        leg->digit_step++;
    } else if (leg->mode == SEND_TONE) {
        memcpy(audio, leg->frame, FRAME);
    } else {
        memset(audio, 0xFF, FRAME);
        if (leg->mode == SEND_SAY && leg->say_at < leg->say_len) {
            long left = leg->say_len - leg->say_at, take = left < FRAME ? left : FRAME;
            memcpy(audio, leg->say + leg->say_at, (size_t)take);
            leg->say_at += take;
        } else if (leg->mode == SEND_MARKS && --leg->mark_countdown <= 0) {
            int at = (leg->mark_count * 37 + leg->port) % (FRAME - 10); /* all positions within a frame */
            for (int i = 0; i < 8; i++) audio[at + i] = to_ulaw(i & 2 ? -20000 : 20000);
            leg->mark_ns[leg->mark_count++ % MARK_RING] = now + at * 125000LL;
            leg->mark_countdown = MARK_FRAMES;
            leg->marks_sent++;
        }
    }
    if (sendto(leg->fd, packet, size, MSG_DONTWAIT, (struct sockaddr *)&leg->peer, sizeof leg->peer) < 0 &&
        errno != ECONNREFUSED)
        send_errors++;
    leg->tx_seq++;
    leg->tx_ts += FRAME;
    leg->sent++;
    packets_out++;
}

/* Which pair of tones is in these 160 samples: *pair, or -1; *mixed is a second call's pair in it, or -1.
 *
 * The share of a tone is its part of the frame's energy. A splice of the jitter buffer leaks into bins on both sides
 * of a tone; a second call adds one or two bins and nothing else. That tells them apart. */
static void find_pair(const float *samples, float energy, int *pair, int *mixed) {
    float share[BINS];
    for (int b = 0; b < BINS; b++) {
        float re = 0, im = 0;
        for (int n = 0; n < FRAME; n++) {
            re += basis[2 * b][n] * samples[n];
            im += basis[2 * b + 1][n] * samples[n];
        }
        share[b] = 2 * (re * re + im * im) / (FRAME * energy);
    }
    int low[2] = {-1, -1}, high[2] = {-1, -1};
    for (int b = 0; b < BINS; b++) {
        int *top = b < LOW_TONES ? low : high;
        if (top[0] < 0 || share[b] > share[top[0]]) top[1] = top[0], top[0] = b;
        else if (top[1] < 0 || share[b] > share[top[1]]) top[1] = b;
    }
    *pair = *mixed = -1;
    float first = share[low[0]] + share[high[0]], third = 0;
    int third_low = share[low[1]] > 0.01f, third_high = share[high[1]] > 0.01f; /* another call may share one tone */
    if (third_low) third += share[low[1]];
    if (third_high) third += share[high[1]];
    if (share[low[0]] < 0.1f || share[high[0]] < 0.1f) return;
    if (third > 0 && 1 - first - third < third / 4) {
        *pair = low[0] + LOW_TONES * (high[0] - LOW_TONES);
        *mixed = (third_low ? low[1] : low[0]) + LOW_TONES * ((third_high ? high[1] : high[0]) - LOW_TONES);
    } else if (first > 0.85f) {
        *pair = low[0] + LOW_TONES * (high[0] - LOW_TONES);
    }
}

static void judge_tone(struct leg *leg, const float *samples, float energy) {
    if (energy < FRAME * AUDIBLE_RMS * AUDIBLE_RMS) {
        leg->silent++;
        if (window_open) leg->win_silent++;
        return;
    }
    int pair, mixed;
    find_pair(samples, energy, &pair, &mixed);
    if (leg->pair < 0) { /* still prompt or music: wait for the bridge */
        if (pair >= 0 && mixed < 0 && by_tone[pair] && pair != leg->tone) {
            leg->candidate_run = pair == leg->candidate ? leg->candidate_run + 1 : 1;
            leg->candidate = pair;
            if (leg->candidate_run >= LOCK_FRAMES) leg->pair = pair;
        } else {
            leg->candidate_run = 0;
        }
        return;
    }
    int other = pair >= 0 && pair != leg->pair ? pair : mixed;
    int again = other >= 0 && other == leg->stray; /* two looks in a row, 100 ms apart, must agree */
    leg->stray = other;
    if (again) {
        leg->foreign++;
        leg->foreign_pair = other;
        if (window_open) leg->win_foreign++;
    } else if (pair == leg->pair && mixed < 0) {
        leg->own++;
        if (window_open) leg->win_own++;
    } else {
        leg->dirty++;
        if (window_open) leg->win_dirty++;
    }
}

static void find_mark(struct leg *leg, const float *samples, int64_t arrival) {
    struct leg *sender = by_tone[leg->pair];
    for (int n = 0; n < FRAME; n++) {
        if (fabsf(samples[n]) < 6000) {
            if (leg->quiet_run < 10000) leg->quiet_run++;
            continue;
        }
        int was_quiet = leg->quiet_run >= 80; /* 10 ms: the first sample of a burst */
        leg->quiet_run = 0;
        if (!was_quiet || !sender) continue;
        int64_t onset = arrival + n * 125000LL, best = -1;
        for (int i = 0; i < MARK_RING; i++) {
            int64_t late = onset - sender->mark_ns[i];
            if (sender->mark_ns[i] && late >= 0 && late < 500 * NS_MS && (best < 0 || late < best)) best = late;
        }
        if (best >= 0 && leg->delay_count < MARK_MAX) leg->delay_ms[leg->delay_count++] = (float)(best / 1e6);
    }
}

static void tape_frame(struct leg *leg, uint32_t ts, const unsigned char *payload, int size) {
    if (!leg->tape_started) leg->tape_started = 1, leg->tape_ts0 = ts;
    long at = (int32_t)(ts - leg->tape_ts0);
    if (at >= 0 && at + size <= leg->tape_len) memcpy(leg->tape + at, payload, (size_t)size);
}

static void take_packet(struct leg *leg, const unsigned char *data, int size, const struct sockaddr_in *from,
                        int64_t arrival) {
    if (size < HEADER || (data[0] & 0xC0) != 0x80) return;
    int skip = HEADER + 4 * (data[0] & 0x0F);
    if (data[0] & 0x10) { /* header extension, RFC 3550 5.3.1 */
        if (skip + 4 > size) return;
        skip += 4 + 4 * (data[skip + 2] << 8 | data[skip + 3]);
    }
    if (skip > size) return;
    packets_in++;
    int payload_type = data[1] & 0x7F;
    if (!leg->active) {
        if (!leg->group->latch) return;
        begin_leg(leg, from, leg->group->event_pt);
        leg->start_ns = leg->last_ns = arrival;
    }
    uint16_t seq = (uint16_t)(data[2] << 8 | data[3]);
    uint32_t ts, ssrc;
    memcpy(&ts, data + 4, 4);
    memcpy(&ssrc, data + 8, 4);
    ts = ntohl(ts), ssrc = ntohl(ssrc);
    int64_t transit = arrival / 125000 - ts, gap = arrival - leg->last_ns;
    if (!leg->have_seq || ssrc != leg->rx_ssrc) {
        if (leg->have_seq) leg->ssrc_changes++;
        leg->have_seq = 1;
        leg->rx_ssrc = ssrc;
        leg->ext_seq = leg->base_seq = 0x10000u + seq;
        leg->received = 0;
        leg->in_window = 0;
    } else {
        int16_t step = (int16_t)(seq - (uint16_t)leg->ext_seq);
        if (step == 0) leg->duplicates++;
        if (step > 0) leg->ext_seq += (uint32_t)step;
        double change = fabs((double)(int32_t)(transit - leg->last_transit));
        if (payload_type == 0) leg->jitter += (change - leg->jitter) / 16;
        if (gap > leg->max_gap_ns) leg->max_gap_ns = gap;
    }
    if (window_open) {
        if (!leg->in_window) { /* the window's base is the packet before this one */
            leg->in_window = 1;
            leg->win_base_seq = leg->ext_seq - 1;
        }
        leg->win_received++;
        leg->win_top_seq = leg->ext_seq;
        if (leg->jitter > leg->win_jitter_max) leg->win_jitter_max = leg->jitter;
        if (gap > leg->win_max_gap_ns && leg->win_received > 1) leg->win_max_gap_ns = gap;
    }
    if (payload_type == 0) leg->last_transit = transit;
    leg->last_ns = arrival;
    leg->last_ts = ts;
    leg->received++;
    if (payload_type != 0 || size - skip != FRAME) return;
    const unsigned char *payload = data + skip;
    if (leg->tape) tape_frame(leg, ts, payload, FRAME);
    float samples[FRAME], energy = 0;
    for (int n = 0; n < FRAME; n++) {
        samples[n] = linear[payload[n]];
        energy += samples[n] * samples[n];
    }
    if (energy > FRAME * AUDIBLE_RMS * AUDIBLE_RMS) {
        leg->audible_ms += 20;
        if (!leg->first_audible_ns) {
            leg->first_audible_ns = arrival;
            if (leg->group->digit_after_ms >= 0)
                leg->digit_due_ns = arrival + leg->group->digit_after_ms * NS_MS;
        }
    }
    if (leg->group->first_tone < 0) return;
    if (leg->mode == SEND_MARKS && leg->pair >= 0) find_mark(leg, samples, arrival);
    else if (leg->mode == SEND_TONE && ++leg->frame_count % ANALYSE_EVERY == 0) judge_tone(leg, samples, energy);
}

static void drain_socket(struct leg *leg) {
    static unsigned char buffers[BATCH][2048];
    static char controls[BATCH][64];
    static struct sockaddr_in froms[BATCH];
    static struct iovec vectors[BATCH];
    static struct mmsghdr messages[BATCH];
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){buffers[i], sizeof buffers[i]};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &froms[i], .msg_namelen = sizeof froms[i],
                                              .msg_iov = &vectors[i], .msg_iovlen = 1,
                                              .msg_control = controls[i], .msg_controllen = sizeof controls[i]};
    }
    int count = recvmmsg(leg->fd, messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) {
        int64_t arrival = 0;
        struct msghdr *header = &messages[i].msg_hdr;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
                struct timespec t;
                memcpy(&t, CMSG_DATA(c), sizeof t);
                arrival = t.tv_sec * 1000000000LL + t.tv_nsec;
            }
        take_packet(leg, buffers[i], (int)messages[i].msg_len, &froms[i], arrival ? arrival : wall_ns());
    }
}

static void start_marks(int on) {
    marks_on = on;
    for (int i = 0; i < leg_count; i++)
        if (legs[i].active && legs[i].pair >= 0 && legs[i].mode != SEND_SAY) {
            legs[i].mode = on ? SEND_MARKS : SEND_TONE;
            legs[i].quiet_run = 0;
        }
}

static void open_window(int on) {
    window_open = on;
    if (!on) return;
    win_late_max_ns = 0;
    win_late_ticks = 0;
    for (int i = 0; i < leg_count; i++) {
        struct leg *leg = &legs[i];
        leg->in_window = 0;
        leg->win_received = 0;
        leg->win_own = leg->win_foreign = leg->win_dirty = leg->win_silent = 0;
        leg->win_jitter_max = 0;
        leg->win_max_gap_ns = 0;
        leg->delay_count = 0;
        leg->marks_sent = 0;
    }
}

static void say(struct leg *leg, const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die("cannot read %s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    free(leg->say);
    leg->say = malloc((size_t)size + 1);
    if (fread(leg->say, 1, (size_t)size, file) != (size_t)size) die("cannot read %s", path);
    fclose(file);
    leg->say_len = size;
    leg->say_at = 0;
    leg->mode = SEND_SAY;
}

static void print_health(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    printf("{\"kind\":\"health\",\"late_max_ms\":%.2f,\"late_ticks\":%llu,\"win_late_max_ms\":%.2f,"
           "\"win_late_ticks\":%llu,\"send_errors\":%llu,\"packets_in\":%llu,\"packets_out\":%llu,\"cpu_s\":%.2f}\n",
           late_max_ns / 1e6, (unsigned long long)late_ticks, win_late_max_ns / 1e6, (unsigned long long)win_late_ticks,
           (unsigned long long)send_errors, (unsigned long long)packets_in, (unsigned long long)packets_out,
           use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6);
}

/* Returns 0 when it is time to go. */
static int obey(char *line) {
    char path[256], address[64];
    int port, remote, event_pt, seconds;
    if (sscanf(line, "peer %d %63s %d %d", &port, address, &remote, &event_pt) == 4) {
        struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)remote)};
        if (port < 0 || port > 65535 || !by_port[port] || !inet_aton(address, &peer.sin_addr))
            die("bad peer line: %s", line);
        end_leg(by_port[port]);
        begin_leg(by_port[port], &peer, event_pt);
    } else if (sscanf(line, "bye %d", &port) == 1) {
        if (port >= 0 && port <= 65535 && by_port[port]) end_leg(by_port[port]);
    } else if (!strcmp(line, "window begin")) {
        open_window(1);
    } else if (!strcmp(line, "window end")) {
        open_window(0);
    } else if (!strcmp(line, "marks on") || !strcmp(line, "marks off")) {
        start_marks(line[7] == 'n');
    } else if (sscanf(line, "say %d %255s", &port, path) == 2) {
        if (port < 0 || port > 65535 || !by_port[port]) die("bad say line: %s", line);
        say(by_port[port], path);
    } else if (sscanf(line, "tone %d", &port) == 1) {
        if (port < 0 || port > 65535 || !by_port[port]) die("bad tone line: %s", line);
        by_port[port]->mode = SEND_TONE;
    } else if (sscanf(line, "record %d %255s %d", &port, path, &seconds) == 3) {
        if (port < 0 || port > 65535 || !by_port[port] || seconds < 1 || seconds > 300) die("bad record line: %s", line);
        struct leg *leg = by_port[port];
        free(leg->tape);
        leg->tape_len = 8000L * seconds;
        leg->tape = malloc((size_t)leg->tape_len);
        memset(leg->tape, 0xFF, (size_t)leg->tape_len);
        leg->tape_started = 0;
        memcpy(leg->tape_path, path, sizeof path);
    } else if (!strcmp(line, "tapes")) {
        for (int i = 0; i < leg_count; i++) save_tape(&legs[i]);
    } else if (!strcmp(line, "report")) {
        for (int i = 0; i < leg_count; i++)
            if (legs[i].active) print_leg(&legs[i], 0);
        print_health();
        printf("{\"kind\":\"reported\"}\n");
        fflush(stdout);
    } else if (!strcmp(line, "quit")) {
        return 0;
    } else {
        die("unknown command: %s", line);
    }
    return 1;
}

static int read_commands(void) {
    static char buffer[1 << 16];
    static size_t filled;
    ssize_t got = read(0, buffer + filled, sizeof buffer - filled - 1);
    if (got == 0) return 0;
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    filled += (size_t)got;
    buffer[filled] = 0;
    char *line = buffer, *end;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        if (!obey(line)) return 0;
        line = end + 1;
    }
    filled = strlen(line);
    memmove(buffer, line, filled + 1);
    return 1;
}

static void parse_group(const char *text) {
    if (group_count == MAX_GROUPS) die("too many groups");
    struct group *g = &groups[group_count++];
    char address[32];
    if (sscanf(text, "%15[^,],%31[^,],%d,%d,%d,%d,%d,%d,%d,%d", g->name, address, &g->first_port, &g->step, &g->count,
               &g->first_tone, &g->digit_after_ms, &g->event_pt, &g->quiet_stop_ms, &g->latch) != 10 ||
        !inet_aton(address, &g->address) || g->count < 1 || g->first_port < 1024 ||
        g->first_port + g->step * (g->count - 1) > 65535 ||
        (g->first_tone >= 0 && g->first_tone + g->count > LOW_TONES * HIGH_TONES))
        die("bad group: %s", text);
    leg_count += g->count;
}

static void open_legs(int epoll) {
    legs = calloc((size_t)leg_count, sizeof *legs);
    struct leg *leg = legs;
    for (struct group *g = groups; g < groups + group_count; g++)
        for (int i = 0; i < g->count; i++, leg++) {
            struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = g->address};
            leg->group = g;
            leg->port = g->first_port + g->step * i;
            here.sin_port = htons((uint16_t)leg->port);
            leg->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
            int one = 1, size = 1 << 17;
            if (leg->fd < 0 || bind(leg->fd, (struct sockaddr *)&here, sizeof here))
                die("port %d: %s; free it or give another RTP block", leg->port, strerror(errno));
            setsockopt(leg->fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
            setsockopt(leg->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
            by_port[leg->port] = leg;
            if (g->first_tone >= 0) {
                leg->tone = g->first_tone + i;
                by_tone[leg->tone] = leg;
                make_frame(leg);
            } else {
                leg->tone = -1;
            }
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = leg};
            if (epoll_ctl(epoll, EPOLL_CTL_ADD, leg->fd, &event)) die("epoll: %s", strerror(errno));
        }
}

int main(int argc, char **argv) {
    if (argc < 3) die("usage: rtpload SECONDS GROUP... (the head of rtpload.c explains)");
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 2; i < argc; i++) parse_group(argv[i]);
    setpriority(PRIO_PROCESS, 0, -10); /* keeps its pace beside SIPp; refused to ordinary users, which is fine */
    make_tables();
    srandom((unsigned)wall_ns());
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    open_legs(epoll);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input)) die("stdin must be a pipe: %s", strerror(errno));
    static char out[1 << 16];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    printf("{\"kind\":\"ready\",\"legs\":%d}\n", leg_count);
    fflush(stdout);
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    int64_t stop = wall_ns() + atoll(argv[1]) * 1000 * NS_MS;
    for (uint64_t tick = 0;; tick++) {
        struct epoll_event events[512];
        int count = epoll_wait(epoll, events, 512, 0), going = 1;
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) drain_socket(events[i].data.ptr);
            else going = read_commands();
        }
        int64_t now = wall_ns();
        if (!going || now > stop) break;
        for (int i = (int)(tick % SLOTS); i < leg_count; i += SLOTS)
            if (legs[i].active && legs[i].have_peer) send_leg(&legs[i], wall_ns());
        if (tick % 50 == 0) fflush(stdout);
        next.tv_nsec += NS_MS;
        if (next.tv_nsec >= 1000000000) next.tv_nsec -= 1000000000, next.tv_sec++;
        struct timespec clock;
        clock_gettime(CLOCK_MONOTONIC, &clock);
        int64_t late = (clock.tv_sec - next.tv_sec) * 1000000000LL + clock.tv_nsec - next.tv_nsec;
        if (late > 0) { /* behind: send the next slot at once, and say so */
            if (late > late_max_ns) late_max_ns = late;
            if (late > win_late_max_ns) win_late_max_ns = late;
            if (late > 5 * NS_MS) late_ticks++, win_late_ticks++;
        } else {
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        }
    }
    for (int i = 0; i < leg_count; i++) end_leg(&legs[i]);
    print_health();
    fflush(stdout);
    return 0;
}
