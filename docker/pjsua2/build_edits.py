"""What careline changes in pjproject beyond config_site.h: each edit a place, our words, a reason.

An edit names a file and a pattern that must match exactly once. When a later pjproject no longer matches, the
build stops and says which edit to look at; nothing is changed by guess.
"""

import re
from dataclasses import dataclass
from pathlib import Path


class EditError(Exception):
    """A source does not look as an edit expects."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One change of one file."""

    name: str  # for progress and errors
    reason: str
    file: str  # below the source folder
    place: str  # regular expression, multi-line; what it matches is replaced
    words: str  # replacement, as for re.sub


EDITS = (
    Edit(
        name="busy ports",
        reason="Ports are given out in turn. When the turn comes to a stretch of a hundred ports that long "
        "calls hold, pjsua gives up and the call fails, however many are free behind it.",
        file="pjsip/src/pjsua-lib/pjsua_media.c",
        place=r"RTP_RETRY = 100\b",
        words="RTP_RETRY = 5000",
    ),
    Edit(
        name="quiet start",
        reason="libCreate prints to standard output before an application can choose a log level, which "
        "spoils what a program with --json prints. pjsua sets the level in libInit.",
        file="pjlib/src/pj/log.c",
        place=r"^(static int pj_log_max_level) = PJ_LOG_MAX_LEVEL;",
        words=r"\1 = 0;",
    ),
    Edit(
        name="unanswered requests",
        reason="careline sends a re-INVITE when a leg's audio is gone. By default a phone that leaves it "
        "unanswered loses its call (408, RFC 3261 12.2.1.2), although it may be heard again the next moment; "
        "a phone that is gone for good ends by the bound on lost media.",
        file="pjsip/src/pjsip/sip_config.c",
        place=r"\b0(?=\s*\},\s*/\* Transaction settings)",
        words="1",
    ),
    Edit(
        name="strict media, RTP",
        reason="pjmedia sends to whoever sends to it. A phone that goes on sending after its BYE becomes the "
        "party of the next call on that port, and hears it. Behind the edge, and for phones on the LAN, the "
        "address in the SDP is right: packets from any other are dropped.",
        file="pjmedia/src/pjmedia/stream_imp_common.c",
        place=r"c_strm->rtp_src_cnt\+\+;",
        words="return; /* careline: media comes from where the SDP says, or not at all */",
    ),
    Edit(
        name="strict media, RTCP",
        reason="The same for reports.",
        file="pjmedia/src/pjmedia/transport_udp.c",
        place=r"(?<=do \{\n)(\s+)(call_rtcp_cb\(udp, bytes_read\);)",
        words=r"\1if (bytes_read <= 0 || !pj_sockaddr_cmp(&udp->rem_rtcp_addr, &udp->rtcp_src_addr))\1    \2",
    ),
    Edit(
        name="epoll, armed",
        reason="A packet costs two changes of its socket's epoll mask. Without flags (config_site.h) "
        "EPOLLIN stays set between two reads …",
        file="pjlib/src/pj/ioqueue_epoll.c",
        place=r"if \(event_types & READABLE_EVENT\)(?=\s+events &= ~EPOLLIN)",
        words="if ((event_types & READABLE_EVENT) && ioqueue->cfg.epoll_flags)",
    ),
    Edit(
        name="epoll, disarmed",
        reason="… and when a datagram comes while nobody reads, poll takes it away under the key's lock; the "
        "next read sets it again.",
        file="pjlib/src/pj/ioqueue_epoll.c",
        place=r"^( *)(?=if \(ioqueue->cfg\.epoll_flags & PJ_IOQUEUE_EPOLL_ONESHOT\) \{\n\s+/\*)",
        words=(
            r"\1if (!ioqueue->cfg.epoll_flags && (events[i].events & EPOLLIN) &&\n"
            r"\1    pj_ioqueue_trylock_key(h) == PJ_SUCCESS)\n"
            r"\1{\n"
            r"\1    if (!IS_CLOSING(h) && !key_has_pending_read(h) && !key_has_pending_accept(h))\n"
            r"\1        update_epoll_event_set(ioqueue, h, h->ev.events & ~EPOLLIN);\n"
            r"\1    pj_ioqueue_unlock_key(h);\n"
            r"\1}\n\n\1"
        ),
    ),
    Edit(
        name="epoll, one read",
        reason="RTP is read through epoll at once, without a first try: the next packet is 20 ms away.",
        file="pjmedia/src/pjmedia/transport_udp.c",
        place=r"(udp->rtp_pkt, &bytes_read,) 0,",
        words=r"\1 PJ_IOQUEUE_ALWAYS_ASYNC,",
    ),
)


def apply(edit: Edit, source: Path) -> None:
    """Make one edit below `source`. Raises EditError when its place is not there exactly once."""
    path = source / edit.file
    try:
        text = path.read_bytes().decode("latin-1")  # as it is, line ends and all
    except OSError as error:
        raise EditError(f'The edit "{edit.name}" needs {edit.file}: {error.strerror}.') from error
    changed, count = re.subn(edit.place, edit.words, text, flags=re.MULTILINE)
    if count != 1:
        raise EditError(
            f'The edit "{edit.name}" found its place {count} times in {edit.file}, not once; this pjproject '
            "differs from the ones careline knows. Look at docker/pjsua2/build_edits.py."
        )
    path.write_bytes(changed.encode("latin-1"))
