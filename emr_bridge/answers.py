"""What an EMR's HTTP answers mean for a note. Pure.

The classes of failure are assigned here and nowhere else, by status and content of the answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

from emr_bridge import fhir
from emr_bridge.failure import ErrorClass, Failure

LONGEST_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: Any = None  # parsed JSON; None when empty or unreadable
    readable: bool = True  # the body was JSON, or empty


def classify(status: int, body: Any, headers: Mapping[str, str]) -> Failure:
    """What an HTTP answer other than the wished one says about a note that was sent (RFC 9110 section 15).

    503 and 429 (and 408, 425) say that the request was not worked on. Other 5xx leave it open. 401 and
    redirects concern every note alike: they wait until somebody mends the access, and kill no note.
    """
    reason = fhir.outcome_reason(body)
    told = f" The EMR says: {reason}" if reason else ""
    if status == 401:
        kind, sentence = (
            ErrorClass.TRANSIENT,
            "The EMR refused our credentials; put a valid token in its file.",
        )
    elif status in (408, 425, 429, 503):
        kind, sentence = ErrorClass.TRANSIENT, f"The EMR is busy or down (HTTP {status})."
    elif 300 <= status < 400:
        kind, sentence = ErrorClass.TRANSIENT, f"The EMR redirects (HTTP {status}); correct its base_url."
    elif status == 412:
        kind = ErrorClass.PERMANENT
        sentence = "The EMR has several resources with one identifier of ours (HTTP 412); merge them."
    elif 400 <= status < 500 or status == 501:
        kind, sentence = ErrorClass.PERMANENT, f"The EMR refused the note (HTTP {status})."
    elif 200 <= status < 300:
        return unreadable(status)
    else:
        kind = ErrorClass.AMBIGUOUS
        sentence = f"The EMR failed (HTTP {status}); the note may have been accepted."
    return Failure(
        error_class=kind, sentence=sentence + told, http_status=status, retry_after_s=retry_after_s(headers)
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds, at most one hour; a date counts from the answer's Date (RFC 9110 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal() and len(value) < 10:
        return min(float(value), LONGEST_RETRY_AFTER_S)
    try:
        wait_s = (parsedate_to_datetime(value) - parsedate_to_datetime(headers["Date"])).total_seconds()
    except (ValueError, TypeError, KeyError):
        return None
    return min(max(wait_s, 0.0), LONGEST_RETRY_AFTER_S)


def stated_interactions(body: Any) -> set[str] | None:
    """System interactions a CapabilityStatement lists; None when it lists none or is not one."""
    if not isinstance(body, dict) or body.get("resourceType") != "CapabilityStatement":
        return None
    codes = {
        str(one.get("code"))
        for rest in _rows(body.get("rest"))
        if isinstance(rest, dict) and rest.get("mode", "server") == "server"
        for one in _rows(rest.get("interaction"))
        if isinstance(one, dict)
    }
    return codes or None


def entry_answers(body: Any) -> list[Answer]:
    """The answers inside a transaction-response, in the order of the request (R4 http.html, 3.1.0.11)."""
    if not isinstance(body, dict) or body.get("resourceType") != "Bundle":
        return []
    parts: list[Answer] = []
    for entry in _rows(body.get("entry")):
        response = entry.get("response") if isinstance(entry, dict) else None
        if not isinstance(response, dict):
            return []
        status = str(response.get("status", ""))[:3]
        resource = entry.get("resource")
        parts.append(
            Answer(
                status=int(status) if status.isdecimal() else 0,
                headers={"Location": str(response.get("location") or "")},
                body=resource if isinstance(resource, dict) else response.get("outcome"),
            )
        )
    return parts


def reference(answer: Answer, kind: str) -> str | None:
    """Reference of what was created or found, from Location or the body."""
    found = fhir.reference_in(answer.headers.get("Location", ""), kind)
    body = answer.body
    if found is None and isinstance(body, dict) and body.get("resourceType") == kind and body.get("id"):
        return fhir.reference_in(f"{kind}/{body['id']}", kind)
    return found


def of_a_read(failure: Failure) -> Failure:
    """The same failure of a read: nothing can have been stored by it."""
    if failure.error_class is ErrorClass.AMBIGUOUS:
        return replace(
            failure, error_class=ErrorClass.TRANSIENT, sentence=f"Reading failed: {failure.sentence}"
        )
    return failure


def unreadable(status: int) -> Failure:
    """Accepted by its status, but nothing else in the answer can be used."""
    return Failure(
        error_class=ErrorClass.AMBIGUOUS,
        http_status=status,
        sentence="The EMR's answer is not the FHIR JSON it should be; the note may have been accepted.",
    )


def nameless(status: int) -> Failure:
    """Accepted, but under which reference cannot be found out."""
    return Failure(
        error_class=ErrorClass.AMBIGUOUS,
        http_status=status,
        hold=True,
        sentence="The EMR accepted the note, but neither names it nor finds it; look for it there.",
    )


def held(why: str) -> Failure:
    """Nothing was sent, because a repeat could not be told; `why` follows "and"."""
    return Failure(
        error_class=ErrorClass.AMBIGUOUS,
        hold=True,
        sentence=f"The note may be in the EMR already, which cannot tell a repeat, and {why}; "
        "look there, then redeliver or settle it.",
    )


def _rows(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
