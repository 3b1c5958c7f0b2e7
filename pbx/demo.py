"""`careline demo`: a whole hotline on this machine, simulated people, a real FHIR server, and one call.

Nothing of the hotline is simulated: Kamailio, rtpengine, PostgreSQL, workers and courier are started as
`careline up` starts them. Simulated are the people: a patient who calls over a trunk, and two clinicians with
registered phones, of whom the first does not answer. Needs a checkout, whose tests/peers the people are.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from emr_bridge.facts import CallFacts
from ivr.load import load_dialplans
from ivr.prompts import prepare
from pbx import logs
from pbx.app.duty import Duty
from pbx.app.ghosts import told_of
from pbx.app.places import database_url, utc_now
from pbx.app.up import Hotline
from pbx.config import Config, load
from pbx.edge.phonecard import card
from pbx.rosters import load_rosters
from pbx.store import calls, phones
from pbx.store.db import Database

ROOT = Path(__file__).resolve().parents[1]
PATIENT_HZ, CLINICIAN_HZ = 440.0, 620.0
RING_S = 5.0  # the first clinician's phone rings so long
TALK_S = 3.0
NOTE_WITHIN_S = 30.0
PATIENT_NUMBER, HOTLINE = "+12025550147", "+13125550100"
PROMPTS = Path(os.environ.get("CARELINE_CACHE", Path.home() / ".cache" / "careline")) / "prompts"


T = TypeVar("T")


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@dataclass(kw_only=True)
class Result:
    """What one call showed."""

    call_id: str = ""
    path: list[str] = field(default_factory=list)
    tried: list[dict[str, Any]] = field(default_factory=list)
    answered_by: str = ""
    audio_ok: dict[str, bool] = field(default_factory=dict)
    setup_ms: int = -1  # patient's INVITE to 200
    note: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Everything that was promised was seen."""
        return not self.faults

    def as_json(self) -> dict[str, Any]:
        """The object that --json prints."""
        return {
            "ok": self.ok,
            "call_id": self.call_id,
            "path": self.path,
            "tried": self.tried,
            "answered_by": self.answered_by,
            "audio_ok": self.audio_ok,
            "setup_ms": self.setup_ms,
            "note": self.note,
            "seconds": round(self.seconds, 1),
            "faults": self.faults,
        }


def main(*, once: bool, as_json: bool, keep: Path | None) -> int:
    """Run the demo; 0 only when everything it shows holds."""
    if not (ROOT / "tests" / "peers" / "phones.py").exists():
        sys.stderr.write(
            "careline demo needs a source checkout: its patient and clinicians are in tests/peers.\n"
        )
        return 1
    sys.path.insert(0, str(ROOT))  # tests is not part of the installed package
    folder = keep or Path(tempfile.mkdtemp(prefix="careline-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # PostgreSQL and the edge run as another user
    with (folder / "careline.log").open("w", encoding="utf-8") as log:
        logs.configure("warning", "demo", log)
        try:
            code = asyncio.run(_Demo(folder, once=once, quiet=as_json).run())
        finally:
            logs.shutdown()
    try:
        if code != 0:  # what the parts said, for whoever looks into it
            sys.stderr.write("".join((folder / "careline.log").read_text().splitlines(keepends=True)[-20:]))
        return code
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


class _Demo:
    def __init__(self, folder: Path, *, once: bool, quiet: bool) -> None:
        self._folder = folder
        self._once = once
        self._quiet = quiet
        self._began = time.monotonic()
        self._result = Result()
        self._spare: phones.NewPhone | None = None
        self._trunk = self._workers = ""

    def _say(self, text: str) -> None:
        if not self._quiet:
            sys.stdout.write(f"[{time.monotonic() - self._began:5.1f} s] {text}\n")
            sys.stdout.flush()

    async def run(self) -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        from tests.peers.phones import Missed, PhoneError

        try:
            async with AsyncExitStack() as stack:
                config = await self._start(stack)
                called = time.monotonic()
                try:
                    await self._call(stack, config)
                except (Missed, PhoneError, DemoError) as error:
                    self._result.faults.append(str(error))
                self._result.seconds = time.monotonic() - called
                self._report()
                if not self._once and self._result.ok and sys.stdin.isatty():
                    self._invite(config)
                    await stop.wait()
        except DemoError as error:
            self._result.faults.append(str(error))
            self._report()
        return 0 if self._result.ok else 1

    # --- starting --------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack) -> Config:
        from tests.peers.fhir_server import running
        from tests.peers.phones import own_address

        # What only the demo talks to has loopback addresses of its own, away from other demos and tests.
        self._trunk, self._workers = own_address(), own_address()
        self._say("starting a FHIR R4 server that is not ours (Medplum's, from npm)")
        self._fhir = await stack.enter_async_context(running())
        config_path = self._folder / "careline.toml"
        config_path.write_text(self._toml(), encoding="utf-8")
        config_path.chmod(0o644)
        config = load(config_path)
        await stack.enter_async_context(Hotline(config, config_path, self._say))
        self._say("the hotline is up")
        return config

    def _toml(self) -> str:
        first = _free_ports(12)
        media = 20000 + 400 * (first // 12 % 25)  # a second demo at the same time has other ports
        return f"""# Made by careline demo.
state_dir = "state"
dialplans = "{ROOT / "dialplans"}"
prompts_cache = "{PROMPTS}"
log_level = "{"error" if self._quiet else "warning"}"

[site]
name = "Lakeside Clinic (demo)"
time_zone = "America/Chicago"

[database]
port = {first}

[edge]
udp_port = {first + 1}
tls_port = {first + 2}
wss_port = {first + 3}
ng_port = {first + 4}
rtp_first = {media}
rtp_last = {media + 399}

[workers]
address = "{self._workers}"
first_port = {first + 6}

[hunt]
ring_s = {RING_S}

[[trunk]]
name = "demo-trunk"
host = "{self._trunk}"
port = {first + 5}
addresses = ["{self._trunk}/32"]

[emr]
connectors = [{{ name = "demo-emr", base_url = "{self._fhir.base_url}" }}]
"""

    # --- one call --------------------------------------------------------------------------------

    async def _call(self, stack: AsyncExitStack, config: Config) -> None:
        from tests.peers.phones import Phone

        edge = f"{config.edge.address}:{config.edge.udp_port}"
        peers = self._folder / "peers"
        patient = await stack.enter_async_context(
            Phone.start(
                folder=peers,
                name="patient",
                bind=self._trunk,
                port=config.trunk[0].port,
                transports=("udp",),
            )
        )
        clinicians = {}
        async with Database(database_url(config), max_size=1) as database:
            for account, name in (("1001", "first"), ("1002", "second"), ("1003", "third")):
                made = await phones.add(
                    database, account, display=f"demo {name}", realm=config.site.realm, at=utc_now()
                )
                if account == "1003":
                    self._spare = made
                    continue
                phone = await stack.enter_async_context(Phone.start(folder=peers, name=name))
                await phone.register(account, made.password, edge, realm=config.site.realm)
                clinicians[account] = phone
        self._say("two clinicians' phones are registered; the patient dials the hotline")
        call = await patient.dial(
            f"sip:{HOTLINE}@{edge}", from_uri=f"sip:{PATIENT_NUMBER}@{self._trunk}", tone_hz=PATIENT_HZ
        )
        self._result.setup_ms = await call.answered(10)
        await call.hears_sound(5)
        self._say(f"answered after {self._result.setup_ms} ms; the patient hears emergency sentence and menu")
        first, second = await self._who_is_tried(config, clinicians)
        await self._choose(call, config)
        await first.incoming(15)
        self._say("the first clinician's phone rings; nobody picks up")
        await second.answer_calls(0.5, tone_hz=CLINICIAN_HZ)
        theirs = await second.incoming(RING_S + 10)
        await theirs.answered(5)
        await theirs.hears_sound(5)
        self._say('the second clinician picks up and hears "Hotline call … press 1 to accept"')
        await asyncio.sleep(1.0)
        await theirs.press("1")
        heard = await asyncio.gather(
            call.hears(CLINICIAN_HZ, 6, for_ms=1000),
            theirs.hears(PATIENT_HZ, 6, for_ms=1000),
            return_exceptions=True,
        )
        self._result.audio_ok = {
            "patient_hears_clinician": not isinstance(heard[0], BaseException),
            "clinician_hears_patient": not isinstance(heard[1], BaseException),
        }
        self._result.faults += [str(one) for one in heard if isinstance(one, BaseException)]
        self._say("both talk: each hears the other's tone" if not self._result.faults else "audio is missing")
        await asyncio.sleep(TALK_S)
        await call.hangup()
        await theirs.ended(5)
        self._say("the patient hangs up; the courier files the note")
        await self._note(config)

    async def _who_is_tried(self, config: Config, clinicians: dict[str, Any]) -> tuple[Any, Any]:
        """The phones in the order the roster tries their owners now."""
        people = Duty(load_rosters(config.dialplans / "roster.toml")).on_duty("nights", utc_now())
        order = [e.address for person in people for e in person.endpoints if e.address in clinicians]
        if len(order) < 2:
            raise DemoError("the roster of the shipped dialplans does not name accounts 1001 and 1002 now")
        return clinicians[order[0]], clinicians[order[1]]

    async def _choose(self, call: Any, config: Config) -> None:
        """Press 1 in the menu and 2 at the consent question, each after its prompt, as a patient would."""
        dialplans = load_dialplans(config.dialplans)
        library = await asyncio.to_thread(prepare, dialplans, config.prompts_cache)
        line = dialplans.line_for(HOTLINE)
        for prompt, key in (("main_menu", "1"), ("consent_recording", "2")):
            (path,) = library.paths(dialplans.prompt(line, dialplans.lines[line].language, prompt))
            await call.hears_prompt(path, 45, min_correlation=0.6)
            await call.press(key)

    async def _note(self, config: Config) -> None:
        """What the database tells of the call, and the note as the FHIR server has it."""
        from emr_bridge.fhir import note_identifier
        from tests.peers.fhir_server import text_of

        facts = await self._story(config)
        self._result.call_id = str(facts.call_id)
        self._result.path = [
            f"{step.node} > {step.choice}" if step.choice else step.node for step in facts.path
        ]
        self._result.tried = [
            {"person": one.person, "outcome": one.outcome, "rang_s": one.rang_s} for one in facts.attempts
        ]
        self._result.answered_by = facts.answered_by or ""
        documents = await _until(
            lambda: self._fhir.find("DocumentReference", note_identifier(facts.call_id, 1)),
            NOTE_WITHIN_S,
            "the note did not appear in the FHIR server",
        )
        if len(documents) != 1:
            raise DemoError(f"the FHIR server has {len(documents)} notes of one call")
        text = text_of(documents[0])
        self._result.note = {
            "server": self._fhir.base_url,
            "document_reference": documents[0]["id"],
            "text": text,
        }
        self._judge(facts, text)

    async def _story(self, config: Config) -> CallFacts:
        async with Database(database_url(config), max_size=1) as database:

            async def ended() -> list[calls.Call]:
                return [call for call in await calls.latest(database, 5) if call.ended_at is not None]

            call = (await _until(ended, 10.0, "the call's end is not in the database"))[0]
            return told_of(call, (await calls.events(database, [call.id]))[call.id])

    def _judge(self, facts: CallFacts, text: str) -> None:
        """The call must have gone as promised and the note must say so."""
        outcomes = [attempt.outcome for attempt in facts.attempts]
        if outcomes != ["no-answer", "accepted"]:
            self._result.faults.append(f"the clinicians' attempts came out as {outcomes}")
        if facts.answered_by_name not in text:
            self._result.faults.append("the note does not name who answered")
        if facts.disposition != "connected":
            self._result.faults.append(f"the call's disposition is {facts.disposition}")

    # --- telling ---------------------------------------------------------------------------------

    def _report(self) -> None:
        result = self._result
        if self._quiet:
            sys.stdout.write(json.dumps(result.as_json(), ensure_ascii=False) + "\n")
            sys.stdout.flush()
            return
        if result.note:
            note = result.note
            self._say(f"the note, read from {note['server']}/DocumentReference/{note['document_reference']}:")
            sys.stdout.write("\n" + "\n".join(f"    {line}" for line in note["text"].splitlines()) + "\n\n")
        for fault in result.faults:
            self._say(f"FAILED: {fault}")
        if result.ok:
            self._say(f"one call, answered and noted, in {result.seconds:.1f} s")

    def _invite(self, config: Config) -> None:
        self._say("it stays up for your own softphone on this machine; dial 700. Ctrl-C ends it.")
        if self._spare is not None:
            sys.stdout.write("\n" + card(config, self._spare.account.username, self._spare.password))
            sys.stdout.flush()


async def _until(find: Callable[[], Awaitable[list[T]]], within_s: float, otherwise: str) -> list[T]:
    """What `find` gives once it is not empty. Raises DemoError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while loop.time() < deadline:
        found = await find()
        if found:
            return found
        await asyncio.sleep(0.2)
    raise DemoError(f"{otherwise} within {within_s:.0f} s")


def _free_ports(count: int) -> int:
    """The first of `count` neighbouring ports nobody uses now, for TCP and UDP."""
    for first in range(42000 + (time.time_ns() // 1000) % 7000, 60000, count):
        if all(_free(first + n) for n in range(count)):
            return first
    raise DemoError("no free ports were found between 42000 and 60000")


def _free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
