"""A note as FHIR R4 resources, and their check before they leave. Pure.

One call is one Encounter, one version of its note one DocumentReference. No Patient is created or guessed:
the subject is a Reference with a display only, which satisfies profiles that demand a subject (US Core) and
names nobody. Both resources carry our own identifiers, which conditional creates and searches go by.
Sources: http://hl7.org/fhir/R4/encounter.html, documentreference.html, http.html#transaction, #ccreate.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from fhir.resources.R4B.documentreference import DocumentReference
from fhir.resources.R4B.encounter import Encounter
from pydantic import ValidationError

from emr_bridge.facts import CallFacts
from emr_bridge.note import TITLE, WARNING, plain

CALL_SYSTEM = "urn:careline:call"  # system of an Encounter's identifier; its value is the call id
NOTE_SYSTEM = "urn:careline:note"  # system of a DocumentReference's identifier; its value is "<call id>/v<N>"
PERSON_SYSTEM = "urn:careline:person"  # system of a roster id; the EMR need not know it

TEXT = "text/plain"
XHTML = "application/xhtml+xml"

_NAMESPACE = UUID("6f0cf3a8-5d6e-5a1f-9d2e-2f6c1f0a7b11")  # of the urn:uuid a resource has inside one bundle
_MODELS: Mapping[str, Any] = {"Encounter": Encounter, "DocumentReference": DocumentReference}
# Required bindings of what we write (R4): fhir.resources checks shapes, not codes.
_CODES: Mapping[tuple[str, str], frozenset[str]] = {
    ("Encounter", "status"): frozenset(
        (
            "planned",
            "arrived",
            "triaged",
            "in-progress",
            "onleave",
            "finished",
            "cancelled",
            "entered-in-error",
            "unknown",
        )
    ),
    ("DocumentReference", "status"): frozenset(("current", "superseded", "entered-in-error")),
    ("DocumentReference", "docStatus"): frozenset(("preliminary", "final", "amended", "entered-in-error")),
    ("DocumentReference", "relatesTo.code"): frozenset(("replaces", "transforms", "signs", "appends")),
    ("*", "identifier.use"): frozenset(("usual", "official", "temp", "secondary", "old")),
}
_LONGEST_REASON = 500  # characters of an EMR's own words that are kept


class Invalid(Exception):
    """A resource of ours would not be valid FHIR; `sentences` say where, without values."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = tuple(sentences)


def call_identifier(call_id: UUID) -> str:
    """The Encounter's identifier as a search token, `system|value` (R4 search, 3.1.1.4.10)."""
    return f"{CALL_SYSTEM}|{call_id}"


def note_identifier(call_id: UUID, version: int) -> str:
    """The DocumentReference's identifier as a search token, `system|value`."""
    return f"{NOTE_SYSTEM}|{call_id}/v{version}"


def encounter(facts: CallFacts) -> dict[str, Any]:
    """The call as an Encounter: class VR (virtual), finished, of nobody known."""
    resource: dict[str, Any] = {
        "resourceType": "Encounter",
        "identifier": [{"use": "official", "system": CALL_SYSTEM, "value": str(facts.call_id)}],
        "status": "finished",
        "class": {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
            "code": "VR",
            "display": "virtual",
        },
        "type": [{"text": "Telephone call"}],
        "subject": _nobody(),
        "period": _period(facts),
        "serviceProvider": {"type": "Organization", "display": plain(facts.site).strip() or "unnamed site"},
    }
    if facts.answered_by and plain(facts.answered_by).strip():
        resource["participant"] = [_clinician(facts, plain(facts.answered_by).strip())]
    return resource


def document_reference(
    facts: CallFacts,
    text: str,
    written_at: datetime,
    encounter_reference: str,
    *,
    xhtml: str | None = None,
    doc_status: str = "preliminary",
    replaces: str | None = None,
) -> dict[str, Any]:
    """One version of the note. `written_at` is aware UTC; references are relative, or urn:uuid in a bundle.

    docStatus preliminary says unsigned. `text` comes first: some EMRs read the first attachment only.
    `replaces` is the EMR's own reference of the version before this one.
    """
    identifier = {"system": NOTE_SYSTEM, "value": f"{facts.call_id}/v{facts.version}"}
    resource: dict[str, Any] = {
        "resourceType": "DocumentReference",
        "masterIdentifier": identifier,
        "identifier": [identifier],
        "status": "current",
        "docStatus": doc_status,
        "type": {
            "coding": [
                {"system": "http://loinc.org", "code": "34748-4", "display": "Telephone encounter Note"}
            ],
            "text": "Telephone encounter Note",
        },
        "category": [
            {
                "coding": [
                    {
                        "system": "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category",
                        "code": "clinical-note",
                        "display": "Clinical Note",
                    }
                ]
            }
        ],
        "subject": _nobody(),
        "date": _instant(written_at),
        "author": [{"type": "Device", "display": "careline, automatic"}],
        "custodian": {"type": "Organization", "display": plain(facts.site).strip() or "unnamed site"},
        "description": f"{TITLE}. {WARNING}.",
        "content": [_attachment(f"{TEXT}; charset=utf-8", text, written_at)],
        "context": {"encounter": [{"reference": encounter_reference}], "period": _period(facts)},
    }
    if xhtml is not None:
        resource["content"].append(_attachment(XHTML, xhtml, written_at))
    if replaces is not None:
        resource["relatesTo"] = [{"code": "replaces", "target": {"reference": replaces}}]
    return resource


def bundle(
    facts: CallFacts,
    text: str,
    written_at: datetime,
    *,
    xhtml: str | None = None,
    doc_status: str = "preliminary",
    replaces: str | None = None,
    conditional: bool = True,
) -> dict[str, Any]:
    """Both resources as one transaction, Encounter first; all of it is stored or nothing.

    `conditional` adds If-None-Exist to both, so that a repeat finds what is there and makes no second one.
    Raises Invalid.
    """
    urn = f"urn:uuid:{uuid5(_NAMESPACE, f'encounter/{facts.call_id}')}"
    resources = (
        (urn, check(encounter(facts)), call_identifier(facts.call_id)),
        (
            f"urn:uuid:{uuid5(_NAMESPACE, f'note/{facts.call_id}/{facts.version}')}",
            check(
                document_reference(
                    facts, text, written_at, urn, xhtml=xhtml, doc_status=doc_status, replaces=replaces
                )
            ),
            note_identifier(facts.call_id, facts.version),
        ),
    )
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": full_url,
                "resource": resource,
                "request": {"method": "POST", "url": resource["resourceType"]}
                | ({"ifNoneExist": f"identifier={token}"} if conditional else {}),
            }
            for full_url, resource, token in resources
        ],
    }


def check(resource: dict[str, Any]) -> dict[str, Any]:
    """Give `resource` back when it is valid R4, as far as we write it; else raise Invalid with all faults."""
    kind = str(resource.get("resourceType"))
    sentences: list[str] = []
    try:
        _MODELS[kind].model_validate(resource)
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False, include_context=False):
            where = ".".join([kind, *(str(part) for part in found["loc"])])
            sentences.append(f"{where}: {found['msg'].rstrip('.')}.")
    for (owner, path), allowed in _CODES.items():
        if owner in (kind, "*"):
            for value in _values(resource, path.split(".")):
                if value not in allowed:
                    sentences.append(f"{kind}.{path}: not a code of the required binding.")
    period = resource.get("period") or resource.get("context", {}).get("period") or {}
    if period.get("start", "") > period.get("end", "~"):  # per-1; both are UTC with the same precision
        sentences.append(f"{kind} has a period that ends before it starts.")
    if sentences:
        raise Invalid(sentences)
    return resource


def found_identifier(resource: Mapping[str, Any], token: str) -> bool:
    """Whether `resource`, as an EMR gave it back, carries the identifier `system|value`."""
    system, _, value = token.partition("|")
    rows = resource.get("identifier")
    carried = [resource.get("masterIdentifier"), *(rows if isinstance(rows, list) else [])]
    return any(
        isinstance(one, Mapping) and one.get("system") == system and one.get("value") == value
        for one in carried
    )


def outcome_reason(body: Any) -> str:
    """An OperationOutcome's issues as one line of at most 500 characters, "" for anything else.

    It is the EMR's own wording and may repeat what we sent: for the database, not for logs.
    """
    if not isinstance(body, Mapping) or body.get("resourceType") != "OperationOutcome":
        return ""
    issues = body.get("issue")
    told: list[str] = []
    for issue in issues if isinstance(issues, list) else []:
        if not isinstance(issue, Mapping) or issue.get("severity") in ("information", "warning"):
            continue
        details = issue.get("details")
        words = (details.get("text") if isinstance(details, Mapping) else None) or issue.get("diagnostics")
        where = issue.get("expression") or issue.get("location")
        spot = ", ".join(str(one) for one in where) if isinstance(where, list) else ""
        told.append(": ".join(part for part in (spot, str(issue.get("code", "")), str(words or "")) if part))
    return plain_reason("; ".join(told))


def plain_reason(text: str) -> str:
    """Words of an EMR as one line without control characters, at most 500 characters."""
    one_line = re.sub(r"\s+", " ", text).strip()[:_LONGEST_REASON]
    return "".join(c if c.isprintable() else "\ufffd" for c in one_line)


def reference_in(location: str, kind: str) -> str | None:
    """`kind/id` out of a Location such as `https://emr/fhir/Encounter/1/_history/2`, else None."""
    found = re.search(rf"(?:^|/)({kind}/(?!\.+(?:/|$))[A-Za-z0-9\-.]{{1,64}})(?:/|$)", location)
    return found[1] if found else None


def _nobody() -> dict[str, Any]:
    return {"type": "Patient", "display": "Unmatched caller"}


def _clinician(facts: CallFacts, person: str) -> dict[str, Any]:
    """Who was connected, by our own id only; an attender (v3 ParticipationType), no signatory."""
    participant: dict[str, Any] = {
        "type": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType",
                        "code": "ATND",
                        "display": "attender",
                    }
                ]
            }
        ],
        "individual": {
            "type": "Practitioner",
            "identifier": {"system": PERSON_SYSTEM, "value": person},
            "display": plain(facts.answered_by_name).strip() or person,
        },
    }
    if facts.answered_at is not None:
        participant["period"] = {"start": _instant(facts.answered_at)}
    return participant


def _period(facts: CallFacts) -> dict[str, str]:
    """From INVITE to end; a clock set back during the call gives an empty period, not an invalid one."""
    return {"start": _instant(facts.started_at), "end": _instant(max(facts.started_at, facts.ended_at))}


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _attachment(content_type: str, text: str, written_at: datetime) -> dict[str, Any]:
    """Inline content; hash is base64 of SHA-1, size is of the bytes before base64 (R4 Attachment)."""
    raw = text.encode()
    digest = hashlib.sha1(raw, usedforsecurity=False).digest()
    return {
        "attachment": {
            "contentType": content_type,
            "language": "en",
            "data": base64.b64encode(raw).decode("ascii"),
            "size": len(raw),
            "hash": base64.b64encode(digest).decode("ascii"),
            "title": TITLE,
            "creation": _instant(written_at),
        }
    }


def _values(value: Any, path: Sequence[str]) -> list[Any]:
    """Every value at a dotted path, through lists."""
    if isinstance(value, list):
        return [found for one in value for found in _values(one, path)]
    if not path:
        return [value]
    if not isinstance(value, Mapping) or path[0] not in value:
        return []
    return _values(value[path[0]], path[1:])
