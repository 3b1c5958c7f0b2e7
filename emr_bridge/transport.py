"""Speaks FHIR R4 over HTTP to one EMR, and says of every failure whether the note may have arrived.

It keeps no state of a note: what was sent before comes with the parcel. It never tries again by itself,
except once with a token that was read anew after 401. What an answer means is in `answers`; what none means,
here.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from emr_bridge import answers, fhir, note
from emr_bridge.answers import Answer
from emr_bridge.facts import CallFacts
from emr_bridge.failure import DeliveryFailed, ErrorClass, Failure

_LARGEST_ANSWER_BYTES = 8 * 1024 * 1024
_MEDIA_TYPE = "application/fhir+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectorSettings:
    """One EMR and what it can do."""

    name: str  # part of the delivery key; never renamed while notes are under way
    base_url: str  # FHIR base, such as https://emr.example/fhir/R4
    token_file: Path | None = None  # file with a bearer token; read again when it is refused
    timeout_s: float = 10.0  # bound on one request
    conditional_create: bool = True  # the server honours If-None-Exist, so a repeat is harmless
    search_identifier: bool = True  # the server finds resources by identifier
    formats: tuple[str, ...] = (fhir.TEXT, fhir.XHTML)  # of the note, text first
    doc_status: str = "preliminary"  # what the EMR takes for an unsigned note
    concurrency: int = 8  # deliveries at once

    @property
    def lease_s(self) -> float:
        """How long a courier may keep one note: longer than all requests of a delivery together."""
        return 7 * self.timeout_s + 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """One version of a note, ready to be sent."""

    facts: CallFacts
    text: str
    written_at: datetime  # aware UTC
    replaces: str | None = None  # reference of the previous version at this EMR
    unsure: bool = False  # it may be there already


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The EMR has it."""

    encounter: str | None  # reference such as Encounter/1; None when only the document was found
    document: str  # reference such as DocumentReference/2
    http_status: int


class Transport:
    """One EMR, over a session shared with the others."""

    def __init__(self, settings: ConnectorSettings, session: aiohttp.ClientSession) -> None:
        """Opens nothing and asks nothing yet."""
        self._settings = settings
        self._session = session
        self._base = settings.base_url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(
            total=settings.timeout_s, sock_connect=min(5.0, settings.timeout_s)
        )
        self._token: str | None = None
        self._transactions: bool | None = None  # None: not asked, or the answer may be out of date

    async def deliver(self, parcel: Parcel) -> Accepted:
        """Bring one note there, as one transaction where the server can, else one resource after the other.

        Raises DeliveryFailed, and fhir.Invalid before anything was sent.
        """
        if parcel.unsure and not self._settings.conditional_create:
            return await self._deliver_if_absent(parcel)
        if await self._takes_transactions():
            accepted = await self._transaction(parcel)
            if accepted is not None:
                return accepted
            self._transactions = False
        return await self._one_by_one(parcel, None)

    async def read_back(self, document: str, note_token: str) -> None:
        """Look whether `document` is there and carries our identifier. Raises DeliveryFailed when not."""
        answer = await self._request("GET", f"/{document}")
        if answer.status in (404, 410):
            raise DeliveryFailed(
                Failure(
                    error_class=ErrorClass.AMBIGUOUS,
                    http_status=answer.status,
                    missing=True,
                    sentence="The EMR accepted the note and now says it has no such document.",
                )
            )
        if answer.status != 200:
            raise DeliveryFailed(
                answers.of_a_read(answers.classify(answer.status, answer.body, answer.headers))
            )
        if not isinstance(answer.body, dict):
            raise DeliveryFailed(
                Failure(
                    error_class=ErrorClass.TRANSIENT,
                    http_status=200,
                    sentence="The answer to reading the document back is not FHIR JSON.",
                )
            )
        if not fhir.found_identifier(answer.body, note_token):
            raise DeliveryFailed(
                Failure(
                    error_class=ErrorClass.AMBIGUOUS,
                    http_status=200,
                    hold=True,
                    sentence="The document read back does not carry the note's identifier; look there.",
                )
            )

    async def _takes_transactions(self) -> bool:
        """Ask /metadata once; a server that says nothing is tried with a transaction."""
        if self._transactions is None:
            answer = await self._request("GET", "/metadata")
            if answer.status in (429, 503):
                raise DeliveryFailed(answers.classify(answer.status, answer.body, answer.headers))
            stated = answers.stated_interactions(answer.body) if answer.status == 200 else None
            self._transactions = True if stated is None else "transaction" in stated
        return self._transactions

    async def _transaction(self, parcel: Parcel) -> Accepted | None:
        """Send both resources at once; None when the server takes no transactions."""
        body = fhir.bundle(
            parcel.facts,
            parcel.text,
            parcel.written_at,
            xhtml=self._xhtml(parcel),
            doc_status=self._settings.doc_status,
            replaces=parcel.replaces,
            conditional=self._settings.conditional_create,
        )
        answer = await self._request("POST", "", body)
        if answer.status in (404, 405, 501):
            return None
        if answer.status != 200 or not answer.readable:
            raise DeliveryFailed(answers.classify(answer.status, answer.body, answer.headers))
        parts = answers.entry_answers(answer.body)
        if len(parts) != len(body["entry"]):
            raise DeliveryFailed(answers.unreadable(answer.status))
        refused = next((part for part in parts if part.status not in (200, 201)), None)
        if refused is not None:
            failure = answers.classify(refused.status, refused.body, answer.headers)
            raise DeliveryFailed(replace(failure, partial=any(p.status in (200, 201) for p in parts)))
        encounter = answers.reference(parts[0], "Encounter")
        note_token = fhir.note_identifier(parcel.facts.call_id, parcel.facts.version)
        document = answers.reference(parts[1], "DocumentReference")
        return Accepted(
            encounter=encounter,
            document=document or await self._find_accepted("DocumentReference", note_token, 200),
            http_status=parts[1].status,
        )

    async def _one_by_one(self, parcel: Parcel, known_encounter: str | None) -> Accepted:
        """Encounter first, then the document that refers to it."""
        facts = parcel.facts
        encounter = known_encounter
        if encounter is None:
            token = fhir.call_identifier(facts.call_id)
            answer = await self._create(fhir.check(fhir.encounter(facts)), token)
            encounter = answers.reference(answer, "Encounter")
            encounter = encounter or await self._find_accepted("Encounter", token, answer.status)
        document = fhir.document_reference(
            facts,
            parcel.text,
            parcel.written_at,
            encounter,
            xhtml=self._xhtml(parcel),
            doc_status=self._settings.doc_status,
            replaces=parcel.replaces,
        )
        try:
            token = fhir.note_identifier(facts.call_id, facts.version)
            answer = await self._create(fhir.check(document), token)
            reference = answers.reference(answer, "DocumentReference")
            reference = reference or await self._find_accepted("DocumentReference", token, answer.status)
        except DeliveryFailed as error:
            raise DeliveryFailed(replace(error.failure, partial=True)) from error
        return Accepted(encounter=encounter, document=reference, http_status=answer.status)

    async def _deliver_if_absent(self, parcel: Parcel) -> Accepted:
        """For a server that cannot tell a repeat: look first, send only what is not there."""
        facts = parcel.facts
        if not self._settings.search_identifier:
            raise DeliveryFailed(answers.held("it cannot be searched either"))
        try:
            token = fhir.note_identifier(facts.call_id, facts.version)
            document = await self._search("DocumentReference", token)
            encounter = await self._search("Encounter", fhir.call_identifier(facts.call_id))
        except DeliveryFailed as error:
            if error.failure.error_class is ErrorClass.PERMANENT and error.failure.http_status != 200:
                raise DeliveryFailed(answers.held("it refused the search for it")) from error
            raise
        if document is not None:
            return Accepted(encounter=encounter, document=document, http_status=200)
        return await self._one_by_one(parcel, encounter)

    async def _find_accepted(self, kind: str, token: str, status: int) -> str:
        """The reference of what was accepted (with `status`) without saying under which one."""
        found = None
        if self._settings.search_identifier:
            try:
                found = await self._search(kind, token)
            except DeliveryFailed as error:
                if error.failure.error_class is not ErrorClass.PERMANENT:
                    raise
        if found is None:
            raise DeliveryFailed(answers.nameless(status))
        return found

    async def _search(self, kind: str, token: str) -> str | None:
        """The reference of the one resource with this identifier, None without one. Raises DeliveryFailed."""
        answer = await self._request("GET", f"/{kind}", params={"identifier": token, "_count": "2"})
        if answer.status != 200 or not isinstance(answer.body, dict):
            raise DeliveryFailed(
                answers.of_a_read(answers.classify(answer.status, answer.body, answer.headers))
            )
        entries = answer.body.get("entry", [])
        if not isinstance(entries, list):
            raise DeliveryFailed(answers.of_a_read(answers.unreadable(200)))
        found = [
            f"{kind}/{resource['id']}"
            for entry in entries
            if isinstance(entry, dict)
            and isinstance(resource := entry.get("resource"), dict)
            and resource.get("resourceType") == kind
            and isinstance(resource.get("id"), str)
            and fhir.found_identifier(resource, token)
        ]
        if len(found) > 1:
            raise DeliveryFailed(
                Failure(
                    error_class=ErrorClass.PERMANENT,
                    http_status=200,
                    sentence=f"The EMR has several {kind} resources with one identifier of ours; merge them.",
                )
            )
        return found[0] if found else None

    async def _create(self, resource: dict[str, Any], token: str) -> Answer:
        """POST one resource; 200 (it was there) and 201 come back, everything else raises DeliveryFailed."""
        headers = {"If-None-Exist": f"identifier={token}"} if self._settings.conditional_create else {}
        answer = await self._request("POST", f"/{resource['resourceType']}", resource, headers=headers)
        if answer.status not in (200, 201) or not answer.readable:
            raise DeliveryFailed(answers.classify(answer.status, answer.body, answer.headers))
        return answer

    def _xhtml(self, parcel: Parcel) -> str | None:
        return note.render_xhtml(parcel.facts) if fhir.XHTML in self._settings.formats else None

    async def _request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One exchange, one more with a fresh token after 401. Raises DeliveryFailed when no answer came."""
        for last in (False, True):
            token = self._token or self._read_token()
            self._token = token
            sent = {"Accept": _MEDIA_TYPE, **(headers or {})}
            if token:
                sent["Authorization"] = f"Bearer {token}"
            if body is not None:
                sent["Content-Type"] = _MEDIA_TYPE
            answer = await self._exchange(method, self._base + path, body, params, sent)
            if answer.status != 401:
                break
            self._token = None
            if last or self._read_token() == token:
                break
        return answer

    async def _exchange(
        self,
        method: str,
        url: str,
        body: dict[str, Any] | None,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
    ) -> Answer:
        """Send and read whole.

        What failed before anything was sent is transient; afterwards a write is ambiguous.
        """
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        try:
            async with self._session.request(
                method,
                url,
                data=data,
                params=params,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                raw = await _read(response)
                status, answered = response.status, response.headers
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            self._transactions = None  # whoever comes back may be another version
            raise DeliveryFailed(
                Failure(
                    error_class=ErrorClass.TRANSIENT,
                    sentence=f"No connection to the EMR ({_name(error)}); "
                    "check its address, network and certificate.",
                )
            ) from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            write = method != "GET"
            raise DeliveryFailed(
                Failure(
                    error_class=ErrorClass.AMBIGUOUS if write else ErrorClass.TRANSIENT,
                    sentence=f"The EMR gave no usable answer ({_name(error)})"
                    + ("; the note may have been accepted." if write else "."),
                )
            ) from error
        try:
            return Answer(status=status, headers=answered, body=json.loads(raw) if raw else None)
        except ValueError:  # UnicodeDecodeError and JSONDecodeError are of its kind
            return Answer(status=status, headers=answered, readable=False)

    def _read_token(self) -> str:
        """The token file's content, "" without one. Raises DeliveryFailed when it cannot be read."""
        if self._settings.token_file is None:
            return ""
        try:
            return self._settings.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DeliveryFailed(
                Failure(
                    error_class=ErrorClass.TRANSIENT,
                    sentence=f"The token file of connector {self._settings.name} cannot be read; "
                    "make it a text file that careline may read.",
                )
            ) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, bounded. Raises aiohttp.ClientError beyond 8 MiB."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > _LARGEST_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError("the answer is larger than 8 MiB")
        parts.append(part)
    return b"".join(parts)


def _name(error: BaseException) -> str:
    """The kind of an exception; its text may hold addresses or payload."""
    return "timeout" if isinstance(error, asyncio.TimeoutError) else type(error).__name__
