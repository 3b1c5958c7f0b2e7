"""The real engine and the real call runner in this process, real phones around it; prompts are tones."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from ivr.flow import Dialplans, PromptRef
from ivr.load import load_dialplans
from pbx.calls import Calls, CallSettings
from pbx.core.call_events import Candidate, Endpoint, Limits
from pbx.core.legs import LegId
from pbx.sip.engine import Engine, EngineSettings
from tests.peers import tones
from tests.peers.phones import own_address

ROOT = Path(__file__).resolve().parents[2]

# One frequency a prompt, far enough apart to be told from each other; 400 ms each.
PROMPT_HZ = {
    "emergency": 500,
    "welcome": 600,
    "main_menu": 700,
    "consent_recording": 800,
    "connecting": 900,
    "still_trying": 1000,
    "nobody_available": 1100,
    "voicemail_greeting": 1200,
    "beep": 1300,
    "goodbye": 1400,
    "screen": 1500,
    "wrong_key": 1600,
    "no_key": 1700,
    "confused": 1800,
    "clinician_dropped": 1900,
    "message_failed": 2000,
    "fault": 2100,
}
MUSIC_HZ = 350


class TonePrompts:
    """Every prompt is its tone."""

    def __init__(self, folder: Path) -> None:
        self._paths = {
            name: (tones.write_wav(folder / f"{name}.wav", tones.tone(hz, 400)),)
            for name, hz in PROMPT_HZ.items()
        }

    def paths(self, prompt: PromptRef) -> tuple[Path, ...]:
        return self._paths[prompt.id]


class Board:
    """A roster of so many people, in order, each with one phone account."""

    def __init__(self, people: Mapping[str, str]) -> None:
        self.people = tuple(
            Candidate(person=person, name=person.title(), endpoints=(Endpoint(kind="sip", address=address),))
            for person, address in people.items()
        )

    def on_duty(self, roster: str, at: datetime) -> tuple[Candidate, ...]:
        return self.people

    def person_at(self, address: str) -> Candidate | None:
        return next((c for c in self.people if c.endpoints[0].address == address), None)

    def language_of(self, person: str) -> str:
        return "en"


class Told:
    """The timeline as it was told."""

    def __init__(self) -> None:
        self.calls: dict[UUID, dict[str, Any]] = {}

    def started(self, *, call_id: UUID, **what: Any) -> None:
        self.calls[call_id] = {"started": what, "entries": [], "ended": None}

    def entry(self, *, call_id: UUID, **what: Any) -> None:
        self.calls[call_id]["entries"].append(what)

    def ended(self, *, call_id: UUID, **what: Any) -> None:
        assert self.calls[call_id]["ended"] is None, "a call ends once"
        self.calls[call_id]["ended"] = what

    def of_caller(self, caller: str) -> dict[str, Any]:
        (found,) = [c for c in self.calls.values() if c["started"]["caller"] == caller]
        return found

    def kinds(self, caller: str) -> list[str]:
        return [entry["kind"] for entry in self.of_caller(caller)["entries"]]


class RoutedEngine(Engine):
    """The engine with phones in place of the edge: a user part is sent to the phone that has it."""

    routes: dict[str, str]  # user part to URI

    def dial(
        self,
        target_uri: str,
        *,
        caller_user: str,
        caller_display: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> LegId:
        user = target_uri.removeprefix("sip:").partition("@")[0]
        return super().dial(
            self.routes.get(user, target_uri),
            caller_user=caller_user,
            caller_display=caller_display,
            headers=headers,
        )


class Rig:
    """A running switch and what it told."""

    def __init__(self, engine: RoutedEngine, calls: Calls, told: Told, address: str) -> None:
        self.engine, self.calls, self.told = engine, calls, told
        self.address = address
        self.uri = f"sip:hotline@{self.address}"

    async def closed(self, caller: str, within_s: float = 8.0) -> dict[str, Any]:
        """The end of a caller's call, once every leg is gone."""
        async with asyncio.timeout(within_s):
            # the switch tells nobody that it is idle, so this asks
            while len(self.calls) or self.told.of_caller(caller)["ended"] is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        ended = self.told.of_caller(caller)["ended"]
        assert isinstance(ended, dict)
        return ended


def short_flow(dialplans: Dialplans) -> Dialplans:
    """The shipped dialplans without the long silences."""
    flows = {}
    for name, flow in dialplans.flows.items():
        nodes = {
            key: node.model_copy(update={"timeout_s": 1.0}) if hasattr(node, "timeout_s") else node
            for key, node in flow.node.items()
        }
        flows[name] = flow.model_copy(update={"node": nodes})
    return replace(dialplans, flows=flows)


@asynccontextmanager
async def rig(
    folder: Path,
    *,
    people: Mapping[str, str],
    routes: Mapping[str, str],
    limits: Limits | None = None,
    codecs: Sequence[str] = ("PCMU", "PCMA"),
    media_loss_s: float = 30.0,
) -> AsyncIterator[Rig]:
    """A switch whose roster is `people` (id to address); `routes` maps addresses to phones' URIs."""
    music = tones.write_wav(folder / "music.wav", tones.tone(MUSIC_HZ, 4000))
    address = own_address()
    told = Told()
    calls: Calls

    engine = RoutedEngine(
        EngineSettings(
            address=address,
            sip_port=5060,
            rtp_first=20000,
            rtp_ports=2000,
            hold_music=music,
            codecs=tuple(codecs),
            media_loss_s=media_loss_s,
        ),
        lambda event: calls.on_leg_event(event),
    )
    engine.routes = dict(routes)
    dialplans = short_flow(load_dialplans(ROOT / "dialplans"))
    board = Board(people)
    prompts = TonePrompts(folder)
    calls = Calls(
        telephony=engine,
        dialplans=lambda: dialplans,
        prompts=lambda: prompts,
        roster=lambda: board,
        timeline=told,
        settings=CallSettings(
            site="Test Clinic",
            time_zone="UTC",
            edge=f"{address}:5060",
            message_dir=folder,
            clock=lambda: datetime.now(UTC),
            limits=limits or Limits(ring_s=2.0, accept_s=4.0, rounds=1),
        ),
    )
    await engine.start()
    try:
        yield Rig(engine, calls, told, f"{address}:5060")
        engine.set_admission(0)
        await calls.drain(0.0)
        assert calls.failures == 0
        counters = engine.counters()
        assert counters["callback_errors"] == counters["command_errors"] == counters["sink_errors"] == 0
    finally:
        await engine.stop(10.0)
