"""Why a leg ended, in one vocabulary: SIP status codes and Q.850 causes mapped to ours.

A *cause* is what the network said; a *disposition* is what a human decided. They are never one field.
Sources: RFC 3261 section 21 (SIP status codes), RFC 3326 (Reason header), ITU-T Q.850 table 1,
RFC 4497 section 8.4.4 (mapping between the two).
"""

from enum import StrEnum


class Cause(StrEnum):
    """The reason a leg ended, independent of which signalling said it."""

    NORMAL = "normal"  # someone hung up after an answer (BYE, Q.850 16)
    CANCELLED = "cancelled"  # the caller gave up before the answer (CANCEL, 487)
    BUSY = "busy"  # 486, 600, Q.850 17
    NO_ANSWER = "no-answer"  # 408 or 480 while ringing, our own ring bound, Q.850 18 and 19
    REJECTED = "rejected"  # 403, 603, Q.850 21: a person or their phone said no
    NOT_FOUND = "not-found"  # 404, 410, 484, 604, Q.850 1 and 28: no such number
    NOT_REGISTERED = "not-registered"  # 404 or 480 from our own registrar: the person has no phone online
    UNREACHABLE = "unreachable"  # 408 without a provisional, 502, 503, 504, Q.850 27, 38, 41
    OVERLOAD = "overload"  # our own admission limit, 503 with Retry-After, Q.850 42
    INCOMPATIBLE = "incompatible"  # 415, 488, 606: no codec in common, Q.850 65, 79, 88
    MEDIA_LOST = "media-lost"  # the dialog was up but no audio packet came within the bound
    TIMEOUT = "timeout"  # our bound on a dialog that was never confirmed (un-ACKed, half open)
    SHUTDOWN = "shutdown"  # we are stopping
    ERROR = "error"  # anything else: 4xx-6xx of no special meaning, an internal error


# RFC 3261 section 21 (and RFC 8197, RFC 8688 for 607, 608); what is not listed is ERROR.
_OF_STATUS: dict[int, Cause] = {
    403: Cause.REJECTED,
    404: Cause.NOT_FOUND,
    406: Cause.INCOMPATIBLE,
    410: Cause.NOT_FOUND,
    415: Cause.INCOMPATIBLE,
    484: Cause.NOT_FOUND,
    485: Cause.NOT_FOUND,
    486: Cause.BUSY,
    487: Cause.CANCELLED,
    488: Cause.INCOMPATIBLE,
    502: Cause.UNREACHABLE,
    503: Cause.UNREACHABLE,
    504: Cause.UNREACHABLE,
    600: Cause.BUSY,
    603: Cause.REJECTED,
    604: Cause.NOT_FOUND,
    606: Cause.INCOMPATIBLE,
    607: Cause.REJECTED,
    608: Cause.REJECTED,
}

# ITU-T Q.850 table 1, grouped as RFC 4497 section 8.4.4 maps them to SIP; what is not listed says nothing to
# us.
_OF_Q850: dict[int, Cause] = {
    1: Cause.NOT_FOUND,  # unallocated number
    2: Cause.UNREACHABLE,  # no route to transit network
    3: Cause.UNREACHABLE,  # no route to destination
    16: Cause.NORMAL,  # normal call clearing
    17: Cause.BUSY,  # user busy
    18: Cause.NO_ANSWER,  # no user responding
    19: Cause.NO_ANSWER,  # no answer from user
    20: Cause.NOT_REGISTERED,  # subscriber absent
    21: Cause.REJECTED,  # call rejected
    22: Cause.NOT_FOUND,  # number changed
    27: Cause.UNREACHABLE,  # destination out of order
    28: Cause.NOT_FOUND,  # invalid number format
    31: Cause.NORMAL,  # normal, unspecified
    34: Cause.OVERLOAD,  # no circuit available
    38: Cause.UNREACHABLE,  # network out of order
    41: Cause.UNREACHABLE,  # temporary failure
    42: Cause.OVERLOAD,  # switching equipment congestion
    47: Cause.OVERLOAD,  # resource unavailable
    55: Cause.REJECTED,  # incoming calls barred within CUG
    57: Cause.REJECTED,  # bearer capability not authorized
    58: Cause.INCOMPATIBLE,  # bearer capability not presently available
    65: Cause.INCOMPATIBLE,  # bearer capability not implemented
    79: Cause.INCOMPATIBLE,  # service or option not implemented
    87: Cause.REJECTED,  # user not member of CUG
    88: Cause.INCOMPATIBLE,  # incompatible destination
    102: Cause.UNREACHABLE,  # recovery on timer expiry
    111: Cause.ERROR,  # protocol error
    127: Cause.ERROR,  # interworking
}

# The Q.850 value we put into a Reason header when we end a leg for this cause (RFC 3326 section 2).
_TO_Q850: dict[Cause, tuple[int, str]] = {
    Cause.NORMAL: (16, "Normal call clearing"),
    Cause.CANCELLED: (16, "Normal call clearing"),
    Cause.BUSY: (17, "User busy"),
    Cause.NO_ANSWER: (19, "No answer from user"),
    Cause.REJECTED: (21, "Call rejected"),
    Cause.NOT_FOUND: (1, "Unallocated number"),
    Cause.NOT_REGISTERED: (20, "Subscriber absent"),
    Cause.UNREACHABLE: (27, "Destination out of order"),
    Cause.OVERLOAD: (42, "Switching equipment congestion"),
    Cause.INCOMPATIBLE: (88, "Incompatible destination"),
    Cause.MEDIA_LOST: (41, "Temporary failure"),
    Cause.TIMEOUT: (102, "Recovery on timer expiry"),
    Cause.SHUTDOWN: (41, "Temporary failure"),
    Cause.ERROR: (127, "Interworking, unspecified"),
}

_WORDS: dict[Cause, str] = {
    Cause.NORMAL: "hung up",
    Cause.CANCELLED: "gave up before the answer",
    Cause.BUSY: "busy",
    Cause.NO_ANSWER: "did not answer",
    Cause.REJECTED: "declined",
    Cause.NOT_FOUND: "no such number",
    Cause.NOT_REGISTERED: "no phone online",
    Cause.UNREACHABLE: "could not be reached",
    Cause.OVERLOAD: "refused, too many calls",
    Cause.INCOMPATIBLE: "no audio format in common",
    Cause.MEDIA_LOST: "audio was lost",
    Cause.TIMEOUT: "set-up did not complete in time",
    Cause.SHUTDOWN: "ended by our shutdown",
    Cause.ERROR: "failed",
}


def of_status(code: int, *, ringing: bool = False) -> Cause:
    """The cause behind a final SIP status (300-699) of an INVITE.

    `ringing`: a provisional response above 100 came before. It tells a phone nobody picked up (408, 480) from
    a person without a phone online (480 of our own registrar, RFC 3261 21.4.18) or a host that is down (408).
    """
    if code == 408:
        return Cause.NO_ANSWER if ringing else Cause.UNREACHABLE
    if code == 480:
        return Cause.NO_ANSWER if ringing else Cause.NOT_REGISTERED
    return _OF_STATUS.get(code, Cause.ERROR)


def of_q850(value: int) -> Cause | None:
    """The cause behind a Q.850 value, or None for one that says nothing to us."""
    return _OF_Q850.get(value)


def of_response(code: int, q850: int | None, *, ringing: bool = False) -> Cause:
    """The cause behind a final response with an optional Q.850 value in its Reason header.

    The network's own value wins (a gateway's 503 may be a busy line), except "normal" values, which say
    nothing about a call that was not set up.
    """
    if q850 is not None:
        told = of_q850(q850)
        if told is not None and told is not Cause.NORMAL:
            return told
    return of_status(code, ringing=ringing)


def of_bye(q850: int | None) -> Cause:
    """The cause behind a BYE of the far end with an optional Q.850 value in its Reason header."""
    return (of_q850(q850) if q850 is not None else None) or Cause.NORMAL


def reason_header(cause: Cause) -> str:
    """Value of the Reason header (RFC 3326) we send when we end a leg for `cause`."""
    value, text = _TO_Q850[cause]
    return f'Q.850;cause={value};text="{text}"'


def words(cause: Cause) -> str:
    """A few English words for people, without a subject: "did not answer"."""
    return _WORDS[cause]
