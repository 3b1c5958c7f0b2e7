"""Talks through the whole edge between real phones (pjsua2), each leg with a tone of its own.

Half of the callers come from a plain trunk, half by TLS + SRTP; every clinician is reached by TLS + SRTP.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from tests.bench import edge_judge, speech
from tests.bench.edge_judge import Leg, Verdict
from tests.e2e.systemrig import System
from tests.peers.phones import Call, Missed, Phone, PhoneError

CLINICIAN, DESK = "clinician", "desk"  # accounts: who is called, and who calls by TLS
HOTLINE, MENU = "hotline", "menu"  # numbers of tests/bench/dialplans
ANSWER_WITHIN_S = 10.0
TALK_WITHIN_S = 20.0
T = TypeVar("T")
TAPE_LAG_S = 0.7  # a recording by pjsua2 lies so far behind


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One call's way to its 200."""

    ms: int  # INVITE to 200, the digest's 401 included
    secure: bool  # came by TLS + SRTP


@dataclass(frozen=True, kw_only=True)
class Side:
    """One phone's part of a talk."""

    call: Call
    hz: int  # what it sends


@dataclass
class EdgeTalks:
    """The three phone programs and their calls."""

    system: System
    trunk: Phone
    desk: Phone
    clinicians: Phone
    answers: list[Answer] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # what did not come about, in a sentence
    callers: list[Side] = field(default_factory=list)
    theirs: list[Side] = field(default_factory=list)

    @classmethod
    async def start(cls, stack: AsyncExitStack, system: System, folder: Path, bridges: int) -> Self:
        """Phones for so many talks and some more callers at the same time; both accounts registered."""
        edge = f"{system.config.edge.address}:{system.config.edge.tls_port}"

        async def secure(name: str) -> Phone:
            phone = await stack.enter_async_context(
                Phone.start(
                    folder=folder / name, name=name, transports=("udp", "tls"), srtp="mandatory",
                    max_calls=bridges + 30,
                )
            )  # fmt: skip
            realm = system.config.site.realm
            await phone.register(name, system.passwords[name], edge, domain=realm, transport="tls")
            return phone

        clinicians, desk = await secure(CLINICIAN), await secure(DESK)
        trunk = await stack.enter_async_context(
            Phone.start(
                folder=folder / "trunk", name="trunk", bind=system.trunk, transports=("udp",),
                max_calls=bridges + 30,
            )
        )  # fmt: skip
        await clinicians.answer_calls(0.2)
        return cls(system=system, trunk=trunk, desk=desk, clinicians=clinicians)

    @property
    def pids(self) -> Sequence[int]:
        """The phone programs."""
        return [phone.pid for phone in (self.trunk, self.desk, self.clinicians)]

    async def grow(self, bridges: int, rate: float) -> None:
        """So many callers, `rate` a second, each brought together with a clinician."""
        taking = [asyncio.create_task(self._clinician(bridges + n)) for n in range(bridges)]
        calling = await _paced(rate, [self._caller(n) for n in range(bridges)])
        self.callers = [side for side in calling if side is not None]
        self.theirs = [side for side in await asyncio.gather(*taking) if side is not None]

    async def set_up(self, calls: int, rate: float) -> int:
        """So many callers of the menu, who hear the prompt and hang up; how many heard it."""
        return sum(await _paced(rate, [self._menu(n) for n in range(calls)]))

    async def verdict(self, window_s: float) -> Verdict:
        """Judge the last `window_s` of every leg's recording."""
        await asyncio.sleep(TAPE_LAG_S)
        samples = round(window_s * speech.RATE_HZ)
        legs = [
            [
                Leg(name=f"{who} {n}", hz=side.hz, audio=side.call.audio()[-samples:])
                for n, side in enumerate(sides)
            ]
            for who, sides in (("caller", self.callers), ("clinician", self.theirs))
        ]
        return await asyncio.to_thread(edge_judge.judge, legs[0], legs[1], window_s)

    async def without_srtp(self) -> int:
        """Legs of TLS phones whose media is not encrypted; the phones would not even take such a call."""
        calls = [side.call for side in (*self.callers, *self.theirs) if side.call.phone is not self.trunk]
        return [bool((await call.stats())["srtp"]) for call in calls].count(False)

    async def speak(self, partners: dict[int, int], clip: Path) -> dict[str, speech.Heard]:
        """The clip spoken in one talk each: by a caller of either kind, and to a caller of either kind."""
        ways: dict[str, tuple[Call, Call]] = {}
        plain = [n for n in partners if self.callers[n].call.phone is self.trunk]
        secure = [n for n in partners if self.callers[n].call.phone is self.desk]
        for kind, talks in (("trunk", plain), ("srtp", secure)):
            for n, towards in zip(talks, ("clinician", "caller"), strict=False):
                caller, theirs = self.callers[n].call, self.theirs[partners[n]].call
                way = (caller, theirs) if towards == "clinician" else (theirs, caller)
                ways[f"{kind}_to_{towards}"] = way
        sent = speech.read_wav(clip)
        starts = {name: listener.position_ms() for name, (_, listener) in ways.items()}
        for speaker, _ in ways.values():
            await speaker.play(clip)
        await asyncio.sleep(len(sent) / speech.RATE_HZ + 1 + TAPE_LAG_S)
        return {
            name: await asyncio.to_thread(
                speech.judge, sent, listener.audio()[starts[name] * speech.RATE_HZ // 1000 :]
            )
            for name, (_, listener) in ways.items()
        }

    async def end(self, rate: float) -> int:
        """Clinicians hang up; how many callers were then ended by the server."""
        for side in self.theirs:
            await side.call.hangup()
            await asyncio.sleep(1 / rate)
        ended = await asyncio.gather(*(side.call.ended(10) for side in self.callers), return_exceptions=True)
        return sum(not isinstance(one, BaseException) for one in ended)

    async def _dial(self, n: int, number: str, hz: int) -> Call:
        """Caller `n`; the even ones come from the trunk."""
        secure = n % 2 == 1
        edge = self.system.config.edge
        if secure:
            call = await self.desk.dial(
                f"sip:{number}@{edge.address}:{edge.tls_port};transport=tls", tone_hz=hz
            )
        else:
            call = await self.trunk.dial(
                f"sip:{number}@{self.system.edge}",
                from_uri=f"sip:+1202555{1000 + n}@{self.system.trunk}",
                tone_hz=hz,
            )
        self.answers.append(Answer(ms=await call.answered(ANSWER_WITHIN_S), secure=secure))
        return call

    async def _caller(self, n: int) -> Side | None:
        hz = edge_judge.tone_hz(n)
        try:
            call = await self._dial(n, HOTLINE, hz)
            await call.hears_sound(8, from_ms=0)
            await call.press("1")
        except (Missed, PhoneError) as error:
            self.failed.append(f"caller {n}: {error}")
            return None
        return Side(call=call, hz=hz)

    async def _clinician(self, leg: int) -> Side | None:
        hz = edge_judge.tone_hz(leg)
        try:
            call = await self.clinicians.incoming(TALK_WITHIN_S)
            await call.answered(ANSWER_WITHIN_S)
            await call.play_tone(hz)
            await call.hears_sound(8, from_ms=0)
            await call.press("1")
        except (Missed, PhoneError) as error:
            self.failed.append(f"clinician: {error}")
            return None
        return Side(call=call, hz=hz)

    async def _menu(self, n: int) -> bool:
        try:
            call = await self._dial(n, MENU, 0)
            await call.hears_sound(8, from_ms=0)
            await call.hangup()
        except (Missed, PhoneError) as error:
            self.failed.append(f"menu caller {n}: {error}")
            return False
        return True


async def _paced(rate: float, works: Sequence[Awaitable[T]]) -> list[T]:
    """Start `rate` works a second; their results in order."""

    async def later(n: int, work: Awaitable[T]) -> T:
        await asyncio.sleep(n / rate)
        return await work

    return list(await asyncio.gather(*(later(n, work) for n, work in enumerate(works))))
