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
