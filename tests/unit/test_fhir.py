"""A note as FHIR: what is written, what is checked, what is read out of answers."""

import base64
import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given, settings

from emr_bridge import fhir, note
from emr_bridge.facts import CallFacts
from tests.emr_calls import START, abandoned_call, after, answered_call
from tests.unit.test_note_facts import FACTS

pytestmark = pytest.mark.unit

WRITTEN = after(251)


def parts(facts: CallFacts, **more: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    bundle = fhir.bundle(facts, note.render(facts), WRITTEN, **more)
    return bundle, bundle["entry"][0]["resource"], bundle["entry"][1]["resource"]


def test_the_encounter_of_an_answered_call() -> None:
    facts = answered_call()
    _, encounter, _ = parts(facts)
    assert encounter["identifier"] == [
        {"use": "official", "system": "urn:careline:call", "value": str(facts.call_id)}
    ]
    assert encounter["status"] == "finished"
    assert encounter["class"]["code"] == "VR"
    assert encounter["period"] == {"start": "2025-03-09T07:58:03.000Z", "end": "2025-03-09T08:02:13.400Z"}
    assert encounter["participant"][0]["individual"]["display"] == "Dr. Bo"
    assert encounter["participant"][0]["period"] == {"start": "2025-03-09T07:59:13.000Z"}


def test_nobody_is_guessed_to_be_the_patient() -> None:
    bundle, encounter, document = parts(answered_call())
    assert encounter["subject"] == document["subject"] == {"type": "Patient", "display": "Unmatched caller"}
    assert [entry["resource"]["resourceType"] for entry in bundle["entry"]] == [
        "Encounter",
        "DocumentReference",
    ]
    assert "+12025550143" not in json.dumps(bundle)  # the number is in the note's text only


def test_a_call_nobody_answered_has_no_participant() -> None:
    _, encounter, _ = parts(abandoned_call())
    assert "participant" not in encounter


def test_the_document_carries_the_note() -> None:
    facts = answered_call()
    text = note.render(facts)
    bundle, _, document = parts(facts, xhtml=note.render_xhtml(facts))
    identifier = {"system": "urn:careline:note", "value": f"{facts.call_id}/v1"}
    assert document["masterIdentifier"] == identifier
    assert document["identifier"] == [identifier]
    assert (document["status"], document["docStatus"]) == ("current", "preliminary")
    assert document["type"]["coding"][0]["code"] == "34748-4"
    assert document["category"][0]["coding"][0]["code"] == "clinical-note"
    assert document["context"]["encounter"] == [{"reference": bundle["entry"][0]["fullUrl"]}]
    assert document["author"][0]["type"] == "Device"
    first, second = (content["attachment"] for content in document["content"])
    raw = base64.b64decode(first["data"])
    assert raw.decode() == text
    assert first["contentType"] == "text/plain; charset=utf-8"
    assert first["size"] == len(raw)
    assert base64.b64decode(first["hash"]) == hashlib.sha1(raw).digest()
    assert second["contentType"] == "application/xhtml+xml"


def test_both_parts_are_created_only_when_they_are_not_there() -> None:
    facts = answered_call(version=2)
    bundle, _, _ = parts(facts)
    assert bundle["type"] == "transaction"
    assert [entry["request"] for entry in bundle["entry"]] == [
        {
            "method": "POST",
            "url": "Encounter",
            "ifNoneExist": f"identifier=urn:careline:call|{facts.call_id}",
        },
        {
            "method": "POST",
            "url": "DocumentReference",
            "ifNoneExist": f"identifier=urn:careline:note|{facts.call_id}/v2",
        },
    ]
    unconditional, _, _ = parts(facts, conditional=False)
    assert all("ifNoneExist" not in entry["request"] for entry in unconditional["entry"])


def test_the_same_facts_give_the_same_bundle() -> None:
    facts = answered_call()
    assert parts(facts)[0] == parts(facts)[0]


def test_an_amendment_replaces_the_version_before() -> None:
    _, _, document = parts(answered_call(version=2), replaces="DocumentReference/77")
    assert document["relatesTo"] == [
        {"code": "replaces", "target": {"reference": "DocumentReference/77"}},
    ]
    assert "relatesTo" not in parts(answered_call())[2]


def test_a_clock_set_back_gives_a_valid_period() -> None:
    _, encounter, _ = parts(answered_call(ended_at=START - timedelta(hours=1)))
    assert encounter["period"]["start"] == encounter["period"]["end"]


@settings(max_examples=60)
@given(FACTS)
def test_any_facts_give_valid_fhir(facts: CallFacts) -> None:
    bundle, _, _ = parts(facts, xhtml=note.render_xhtml(facts), replaces="DocumentReference/1")
    Bundle.model_validate(json.loads(json.dumps(bundle)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"status": "done"}, "Encounter.status: not a code of the required binding."),
        (
            {"period": {"start": "2025-01-02T00:00:00Z", "end": "2025-01-01T00:00:00Z"}},
            "ends before it starts",
        ),
        (
            {"identifier": [{"use": "mine", "value": "x"}]},
            "Encounter.identifier.use: not a code of the required binding.",
        ),
        ({"patient": {}}, "Encounter.patient: Extra inputs are not permitted."),
        ({"class": "VR"}, "Encounter.class: "),
    ],
)
def test_invalid_resources_are_named_by_place(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(fhir.Invalid) as caught:
        fhir.check(fhir.encounter(answered_call()) | change)
    assert sentence in str(caught.value)


def test_an_unknown_document_status_does_not_leave() -> None:
    with pytest.raises(fhir.Invalid) as caught:
        parts(answered_call(), doc_status="draft")
    assert caught.value.sentences == ("DocumentReference.docStatus: not a code of the required binding.",)


@pytest.mark.parametrize(
    ("location", "reference"),
    [
        ("https://emr/fhir/R4/Encounter/a-1/_history/2", "Encounter/a-1"),
        ("Encounter/7", "Encounter/7"),
        ("Encounter/7/", "Encounter/7"),
        ("https://emr/MyEncounter/7", None),
        ("Encounter/" + "x" * 65, None),
        ("", None),
    ],
)
def test_references_are_read_from_locations(location: str, reference: str | None) -> None:
    assert fhir.reference_in(location, "Encounter") == reference


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (None, ""),
        ([], ""),
        ({"resourceType": "OperationOutcome", "issue": 5}, ""),
        (
            {
                "resourceType": "OperationOutcome",
                "issue": [
                    {"severity": "warning", "code": "informational", "diagnostics": "never mind"},
                    {
                        "severity": "error",
                        "code": "code-invalid",
                        "details": {"text": "Not\na code"},
                        "expression": ["Encounter.status"],
                    },
                    {"severity": "error", "code": "processing", "diagnostics": "x\x00" + "y" * 999},
                ],
            },
            ("Encounter.status: code-invalid: Not a code; processing: x\ufffd" + "y" * 999)[:500],
        ),
    ],
)
def test_the_reason_of_an_outcome_is_one_bounded_line(body: Any, reason: str) -> None:
    assert fhir.outcome_reason(body) == reason


def test_an_identifier_is_found_in_either_place() -> None:
    facts = answered_call()
    _, encounter, document = parts(facts)
    token = fhir.note_identifier(facts.call_id, 1)
    assert fhir.found_identifier(document, token)
    assert fhir.found_identifier({k: v for k, v in document.items() if k != "identifier"}, token)
    assert not fhir.found_identifier(encounter, token)
    assert not fhir.found_identifier({"identifier": "odd"}, token)
