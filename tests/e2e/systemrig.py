"""The whole hotline for tests: every part as `careline up` runs it, a FHIR server, a trunk, phones.

Each system has its own folder, loopback addresses and ports, so several may run beside each other.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from emr_bridge.facts import CallFacts
from emr_bridge.fhir import note_identifier
from ivr.flow import Dialplans
from ivr.load import load_dialplans
from ivr.prompts import PromptLibrary, prepare
from pbx.app.ghosts import told_of
from pbx.app.places import database_url, utc_now
from pbx.app.up import Hotline
from pbx.config import Config, load
from pbx.edge.supervisor import ChildStatus
from pbx.store import calls, phones
from pbx.store.db import Database, DatabaseAway
from tests.integration.pgrig import free_port
from tests.peers.fhir_server import FhirServer, running, text_of
from tests.peers.phones import Call, Missed, Phone, own_address

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = Path(os.environ.get("CARELINE_CACHE", Path.home() / ".cache" / "careline")) / "prompts"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Clinic:
    """What differs between test systems."""

    dialplans: Path = ROOT / "dialplans"
    workers: int = 1
    accounts: tuple[str, ...] = ("1001", "1002")
    hotline: str = "+13125550100"
    ring_s: float = 6.0
    rtp_ports: int = 1000  # of rtpengine
    max_calls: int = 250
    drain_s: int = 2


class System:
    """A running hotline and its people."""

    def __init__(
        self, config: Config, hotline: Hotline, fhir: FhirServer, trunk: str, clinic: Clinic
    ) -> None:
        self.config, self.hotline, self.fhir, self.trunk, self.clinic = config, hotline, fhir, trunk, clinic
        self.edge = f"{config.edge.address}:{config.edge.udp_port}"
        self.passwords: dict[str, str] = {}
        self.dialplans: Dialplans = load_dialplans(config.dialplans)
        self._library: PromptLibrary | None = None

    # --- people

    async def clinician(self, stack: AsyncExitStack, account: str, folder: Path, **options: Any) -> Phone:
        """A registered phone."""
        phone = await stack.enter_async_context(Phone.start(folder=folder, name=f"c{account}", **options))
        await phone.register(account, self.passwords[account], self.edge, realm=self.config.site.realm)
        return phone

    async def patient(self, stack: AsyncExitStack, folder: Path, **options: Any) -> Phone:
        """The telephone network: calls from the trunk's address."""
        return await stack.enter_async_context(
            Phone.start(
                folder=folder,
                name="trunk",
                bind=self.trunk,
                port=self.config.trunk[0].port,
                transports=("udp",),
                **options,
            )
        )

    async def call(self, patient: Phone, caller: str, tone_hz: float, hotline: str = "") -> Call:
        """A patient dials the hotline and is answered."""
        call = await patient.dial(
            f"sip:{hotline or self.clinic.hotline}@{self.edge}",
            from_uri=f"sip:{caller}@{self.trunk}",
            tone_hz=tone_hz,
        )
        await call.answered(10)
        return call

    async def prompt(self, name: str, line: str = "") -> Path:
        """The audio of a prompt as callers of a line hear it."""
        if self._library is None:
            self._library = await asyncio.to_thread(prepare, self.dialplans, self.config.prompts_cache)
        line = line or self.dialplans.line_for(self.clinic.hotline)
        language = self.dialplans.lines[line].language
        (path,) = self._library.paths(self.dialplans.prompt(line, language, name))
        return path

    async def to_the_hunt(self, call: Call) -> None:
        """Listen to the prompts, choose the clinician, refuse the recording."""
        for name, key in (("main_menu", "1"), ("consent_recording", "2")):
            await call.hears_prompt(await self.prompt(name), 45, min_correlation=0.6)
            await call.press(key)

    async def accept(self, phone: Phone, within_s: float = 20.0) -> Call:
        """A clinician whose phone answers by itself hears the question and presses 1."""
        theirs = await phone.incoming(within_s)
        await theirs.answered(10)
        await theirs.hears_sound(8)
        await asyncio.sleep(0.5)
        await theirs.press("1")
        return theirs

    # --- what became of it

    async def facts(self, caller: str, within_s: float = 15.0) -> CallFacts:
        """The story of an ended call, from the database."""
        async with Database(database_url(self.config), max_size=1) as database:

            async def find() -> CallFacts | None:
                try:
                    for call in await calls.latest(database, 200):
                        if call.caller == caller and call.ended_at is not None:
                            return told_of(call, (await calls.events(database, [call.id]))[call.id])
                except DatabaseAway:
                    pass
                return None

            return await until(find, within_s, f"the end of the call of {caller} in the database")

    async def note(self, facts: CallFacts, within_s: float = 20.0) -> str:
        """The one note of a call, as the FHIR server has it."""

        async def find() -> list[dict[str, Any]] | None:
            return await self.fhir.find("DocumentReference", note_identifier(facts.call_id, 1)) or None

        documents = await until(find, within_s, "the note in the FHIR server")
        assert len(documents) == 1, f"{len(documents)} notes of one call"
        return text_of(documents[0])

    # --- doing harm

    def status(self, name: str) -> ChildStatus:
        """One child of the supervisor."""
        return next(child for child in self.hotline.supervisor.status() if child.name == name)

    def kill(self, name: str) -> None:
        """SIGKILL to the whole group of one part."""
        pid = self.status(name).pid
        assert pid is not None, f"{name} does not run"
        os.killpg(pid, signal.SIGKILL)

    async def is_back(self, name: str, restarts: int = 1, within_s: float = 30.0) -> None:
        """The part was restarted and is ready."""

        async def ready() -> bool | None:
            status = self.status(name)
            return True if status.restarts >= restarts and status.state == "ready" else None

        await until(ready, within_s, f"{name} ready again")


async def until(check: Callable[[], Awaitable[T | None]], within_s: float, what: str) -> T:
    """What `check` gives once it is not None. Raises Missed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        found = await check()
        if found is not None:
            return found
        if loop.time() > deadline:
            raise Missed(f"{what}: not within {within_s} s")
        await asyncio.sleep(0.1)


@asynccontextmanager
async def system(clinic: Clinic | None = None) -> AsyncIterator[System]:
    """Start everything; at the end stop it and see that nothing is left."""
    clinic = clinic or Clinic()
    folder = Path(tempfile.mkdtemp(prefix="cl-"))
    folder.chmod(0o755)
    said: list[str] = []
    try:
        async with AsyncExitStack() as stack:
            fhir = await stack.enter_async_context(running())
            edge, workers, trunk = own_address(), own_address(), own_address()
            path = folder / "careline.toml"
            path.write_text(_toml(clinic, edge, workers, trunk, fhir.base_url), encoding="utf-8")
            config = load(path)
            hotline = await stack.enter_async_context(Hotline(config, path, said.append))
            made = System(config, hotline, fhir, trunk, clinic)
            async with Database(database_url(config), max_size=1) as database:
                for account in clinic.accounts:
                    new = await phones.add(database, account, realm=config.site.realm, at=utc_now())
                    made.passwords[account] = new.password
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _toml(clinic: Clinic, edge: str, workers: str, trunk: str, fhir: str) -> str:
    return f"""
state_dir = "state"
dialplans = "{clinic.dialplans}"
prompts_cache = "{PROMPTS}"
log_level = "warning"
[site]
name = "Test Clinic"
time_zone = "America/Chicago"
[database]
port = {free_port()}
[edge]
address = "{edge}"
udp_port = 5060
tls_port = 5061
wss_port = 0
ng_port = {free_port()}
rtp_first = 30000
rtp_last = {30000 + clinic.rtp_ports}
[workers]
count = {clinic.workers}
address = "{workers}"
max_calls = {clinic.max_calls}
drain_s = {clinic.drain_s}
[hunt]
ring_s = {clinic.ring_s}
[[trunk]]
name = "test-trunk"
host = "{trunk}"
port = 5060
addresses = ["{trunk}/32"]
[emr]
connectors = [{{ name = "test-emr", base_url = "{fhir}" }}]
"""


QUICK = "+13125550199"  # a line of test systems: emergency sentence, then the people on duty at once
MOBILE = "+1720555{:04d}"
_QUICK_FLOW = """start = "emergency"
human = "clinician"

[node.emergency]
type = "emergency"
next = "clinician"

[node.clinician]
type = "on_call"
on_nobody = "nobody"

[node.nobody]
type = "voicemail"
greeting = "nobody_available"
next = "goodbye"

[node.goodbye]
type = "hangup"
prompt = "goodbye"
"""


def _line(name: str, number: str, roster: str) -> str:
    return (
        f'\n[line.{name}]\nname = {{ en = "the test line", es = "la línea de prueba" }}\n'
        f'numbers = ["{number}"]\nflow = "quick"\nlanguage = "en"\ncountry = "US"\nroster = "{roster}"\n'
    )


def quick_clinic(folder: Path) -> Clinic:
    """The shipped dialplans, and the quick line for the same people."""
    target = folder / "dialplans"
    shutil.copytree(ROOT / "dialplans", target)
    (target / "quick.toml").write_text(_QUICK_FLOW, encoding="utf-8")
    with (target / "numbers.toml").open("a", encoding="utf-8") as numbers:
        numbers.write(_line("quick", QUICK, "nights"))
    return Clinic(dialplans=target)


def paired_clinic(folder: Path, pairs: int) -> tuple[Clinic, Sequence[str]]:
    """So many quick lines, each with a clinician of its own who is called on a mobile; the lines' numbers.

    The mobile of line n is MOBILE.format(n).
    """
    clinic = quick_clinic(folder)
    numbers = [f"+1312555{n:04d}" for n in range(1000, 1000 + pairs)]
    lines, roster = "", ""
    for n, number in enumerate(numbers):
        name = f"pair{n}"
        lines += _line(name, number, name)
        roster += (
            f'\n[person.{name}]\nname = "Clinician {n}"\nendpoints = [{{ phone = "{MOBILE.format(n)}" }}]\n'
            f'\n[roster.{name}]\ntime_zone = "UTC"\nlast_resort = "voicemail"\n'
            f'[[roster.{name}.shift]]\nkind = "always"\npeople = ["{name}"]\n'
        )
    for file, text in (("numbers.toml", lines), ("roster.toml", roster)):
        with (clinic.dialplans / file).open("a", encoding="utf-8") as opened:
            opened.write(text)
    return replace(clinic, ring_s=60.0, rtp_ports=4000), numbers
