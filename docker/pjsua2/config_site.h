/* What careline's worker needs of pjproject beyond its defaults. Part of the wheel's cache key:
 * any change here rebuilds it. Upstream's defaults stop at 4 calls, select() and 64 sockets. */

/* Capacity: one process, one core, up to 250 callers with two legs each and room to refuse the rest politely. */
#define PJSUA_MAX_CALLS           1024
#define PJSUA_MAX_ACC             256
#define PJSUA_MAX_BUDDIES         512
#define PJSUA_MAX_PLAYERS         4096
#define PJSUA_MAX_RECORDERS       4096
#define PJSUA_MAX_CONF_PORTS      12000   /* legs, players, recorders and taps each take one */
#define PJ_IOQUEUE_MAX_HANDLES    16384   /* RTP and RTCP of every leg, plus transports; epoll has no FD_SETSIZE */
#define PJSIP_MAX_TSX_COUNT       16383   /* ended transactions stay for PJSIP_TD_TIMEOUT */
#define PJSIP_MAX_DIALOG_COUNT    8191

/* A burst of INVITEs waits in the kernel instead of being lost. */
#define PJSIP_UDP_SO_SNDBUF_SIZE  (4 * 1024 * 1024)
#define PJSIP_UDP_SO_RCVBUF_SIZE  (4 * 1024 * 1024)

/* Route sets, identity headers and ICE candidates of a browser make requests longer than the default 4000.
 * Each message keeps a buffer of this size in a pool that grows by 4000 bytes: a little under 8000 takes two
 * steps, 8000 would take three, and ended transactions keep it for PJSIP_TD_TIMEOUT. */
#define PJSIP_MAX_PKT_LEN         7900

/* How long a transaction waits for an answer (timers B, F, H) or for repeated requests after it (D, J), in ms.
 * RFC 3261 has 32 s, and memory is held for so long: 61 kB a transaction. Our only neighbour is the edge, on the
 * same machine or a private network: it repeats what we did not answer for 5 s at most, takes the repetitions of
 * phones and trunks on itself (RFC 3261 16.7, 17.2), and answers 100 or a final status within those 5 s. In 10 s
 * a request of ours is sent five times (0, 0.5, 1.5, 3.5, 7.5 s). */
#define PJSIP_TD_TIMEOUT          10000

/* Media never follows the packets that come in: see build_edits.py. */
#define PJMEDIA_TRANSPORT_SWITCH_REMOTE_ADDR 0

/* One thread polls each epoll set, so its sockets need neither EPOLLEXCLUSIVE nor EPOLLONESHOT: see
 * build_edits.py. */
#define PJ_IOQUEUE_DEFAULT_EPOLL_FLAGS 0

/* Features */
#define PJ_HAS_IPV6               1
#define PJ_HAS_SSL_SOCK           1
#define PJMEDIA_HAS_SRTP          1
#define PJMEDIA_SRTP_HAS_SDES     1
/* configure does not see srtp_shutdown in a static libsrtp; without it an engine cannot start again in its process. */
#undef PJMEDIA_SRTP_HAS_SHUTDOWN
#define PJMEDIA_SRTP_HAS_SHUTDOWN 1
#define PJMEDIA_HAS_OPUS_CODEC    1
#define PJMEDIA_HAS_VIDEO         0

/* A server refuses bad input; it does not abort on it. The build script adds NDEBUG. */
#define PJ_DEBUG                  0
