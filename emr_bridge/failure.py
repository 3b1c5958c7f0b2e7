"""Why a delivery did not succeed, in three classes. Pure.

Whether an attempt may be repeated follows from its class, never from the fact that it failed alone:
a repeat after an ambiguous failure files a second note wherever the EMR cannot tell a repeat.
"""

from dataclasses import dataclass
from enum import StrEnum


class ErrorClass(StrEnum):
    """What a failure says about the note at the EMR."""

    TRANSIENT = "transient"  # surely not accepted; the same again later may work
    AMBIGUOUS = "ambiguous"  # sent, but no usable answer came: it may have been accepted
    PERMANENT = "permanent"  # refused; the same again is pointless


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One failed step of a delivery."""

    error_class: ErrorClass
    sentence: (
        str  # what happened and what to do; may hold the EMR's own reason, so it goes to the database only
    )
    http_status: int | None = None  # of the answer; None when there was none
    retry_after_s: float | None = None  # the server's wish (RFC 9110 10.2.3)
    partial: bool = False  # an earlier part of the same note was accepted
    hold: bool = False  # a repeat could file it twice: only a person may decide
    missing: bool = False  # read-back: the server says it has no such document


class DeliveryFailed(Exception):
    """A step of a delivery failed; `failure` says how. Its text names the class alone."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"delivery failed: {failure.error_class}")
        self.failure = failure
