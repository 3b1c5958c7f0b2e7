"""SIP phones for tests: each a process of `tests.peers.phone`, driven from asyncio with bounded waits.

    async with Phone.start(folder=tmp_path, name="a") as alice, Phone.start(folder=tmp_path, name="b") as bob:
        await bob.answer_calls(tone_hz=620)
        call = await alice.dial(bob.uri, tone_hz=440)
        await call.answered(5)
        await call.hears(620, 5)

A wait that is not fulfilled raises `Missed`, an AssertionError that tells what was seen instead. Audio is
judged from the call's recording, which runs about half a second behind; "from now on" means from its present
end.
The default address of each phone is its own in 127.0.0.0/8, so phones of parallel runs never meet.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.peers import tones
from tests.peers.ears import Ears
from tests.peers.waiting import Event, Missed, Reports, make_certificate, own_address

__all__ = ["Call", "Ended", "Event", "Missed", "Phone", "PhoneError", "make_certificate", "own_address"]

ROOT = Path(__file__).resolve().parents[2]
_serial = itertools.count(1)


class PhoneError(RuntimeError):
    """The phone program refused a command or has gone away."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a call ended."""

    code: int  # last SIP status
    reason: str  # its phrase
    by_peer: bool  # the far end ended it
    was_answered: bool  # it had been up
    ms: int  # from its beginning to its end
    headers: Mapping[str, str]  # of the message that ended it, e.g. "retry-after"


class Call(Ears):
    """One call of a phone, in either direction."""

    def __init__(self, phone: "Phone", number: int, direction: str, recording: Path) -> None:
        self.phone, self.number, self.direction = phone, number, direction
        self.recording = recording  # WAV of what this phone received; grows during the call

    # -- what happened

    @property
    def events(self) -> list[Event]:
        """All reports about this call so far."""
        return [event for event in self.phone.events if event.call == self.number]

    @property
    def digits(self) -> str:
        """Keys received from the far end so far."""
        return "".join(event.detail["digit"] for event in self.events if event.kind == "digit")

    @property
    def over(self) -> bool:
        """The dialog has ended."""
        return any(event.kind == "ended" for event in self.events)

    @property
    def _incoming(self) -> Mapping[str, Any]:
        return next((event.detail for event in self.events if event.kind == "incoming"), {})

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields of the INVITE of an incoming call, lower-case names."""
        return dict(self._incoming.get("headers", {}))

    @property
    def from_uri(self) -> str:
        """URI of the caller of an incoming call."""
        return str(self._incoming.get("from_uri", ""))

    @property
    def display(self) -> str:
        """Display name of the caller of an incoming call."""
        return str(self._incoming.get("display", ""))

    @property
    def to_uri(self) -> str:
        """Request-URI of an incoming call."""
        return str(self._incoming.get("to_uri", ""))

    @property
    def sdp(self) -> str:
        """Offer of an incoming call."""
        return str(self._incoming.get("sdp", ""))

    async def event(self, kind: str, within_s: float, **detail: object) -> Event:
        """The first report of that kind, with these details, about this call. Raises Missed."""
        return await self.phone.event(kind, within_s, call=self.number, **detail)

    async def ringing(self, within_s: float) -> Event:
        """180 arrived."""
        return await self.event("ringing", within_s)

    async def early(self, within_s: float) -> Event:
        """Media before the answer (183 with SDP)."""
        return await self.event("media", within_s)

    async def answered(self, within_s: float) -> int:
        """The dialog is confirmed and audio runs; milliseconds from INVITE to answer.

        Raises Missed, at once if the call ends instead.
        """

        def check() -> int | None:
            at = next((e for e in self.events if e.kind == "answered"), None)
            ended = next((e for e in self.events if e.kind == "ended"), None)
            if at is None and ended is not None:
                raise Missed(
                    f"{self} was not answered: it ended with {ended.detail['code']} {ended.detail['reason']}"
                )
            media = any(e.kind == "media" for e in self.events)
            return int(at.detail["ms"]) if at and media else None

        return await self.phone.until(check, within_s, f"{self} answered")

    async def ended(self, within_s: float) -> Ended:
        """The dialog is over."""
        return self._ended(await self.event("ended", within_s))

    def _ended(self, event: Event) -> Ended:
        keys = ("code", "reason", "by_peer", "was_answered", "ms", "headers")
        return Ended(**{key: event.detail[key] for key in keys})

    async def received_digits(self, digits: str, within_s: float) -> None:
        """The far end pressed exactly these keys by then; more or others raise Missed."""
        await self.phone.until(
            lambda: True if len(self.digits) >= len(digits) else None,
            within_s,
            f"{self} received the digits {digits}, has {self.digits!r}",
        )
        if self.digits != digits:
            raise Missed(f"{self} received the digits {self.digits!r} instead of {digits!r}")

    async def held(self, within_s: float) -> Event:
        """The far end has put us on hold."""
        return await self.event("media", within_s, state="remote_hold")

    def _deaf(self) -> str:
        done = self.phone.gone or any(event.kind == "recorded" for event in self.events)
        return "the call is over" if done else ""

    async def recorded(self, within_s: float = 5) -> Path:
        """The call is over and its recording complete. Raises Missed when there was never any media."""
        event = await self.event("recorded", within_s)
        if event.detail["path"] is None:
            raise Missed(f"{self} never had media, so there is no recording")
        return self.recording

    async def report(self) -> list[tones.Span]:
        """What was heard so far, as spans; after the end of the call the phone's own last report."""
        done = next((event for event in self.events if event.kind == "recorded"), None)
        spans = done.detail["spans"] if done else (await self._do("report"))["spans"]
        return [tones.Span(**span) for span in spans]

    async def stats(self) -> Mapping[str, Any]:
        """codec, srtp, peer, rx_packets, rx_lost, rx_jitter_us, tx_packets; while the call is up."""
        return await self._do("stats")

    # -- what to do

    async def answer(self) -> None:
        """200 to an incoming call."""
        await self._do("respond", code=200)

    async def respond(self, code: int) -> None:
        """Any response to an incoming call: 180, 183 (with media), 486 ..."""
        await self._do("respond", code=code)

    async def press(self, digits: str, *, via: str = "rfc4733", ms: int = 160) -> None:
        """Presses keys; `via` rfc4733, info or inband."""
        await self._do("digits", digits=digits, via=via, ms=ms)

    async def play_tone(self, hz: float | Sequence[float], *, dbfs: float = -15.0) -> None:
        """The far end hears this tone (or two) from now on."""
        await self._do("tone", hz=hz, dbfs=dbfs)

    async def play(self, wav: Path, *, loop: bool = False) -> None:
        """The far end hears this file."""
        await self._do("play", wav=str(wav), loop=loop)

    async def quiet(self) -> None:
        """The far end hears silence."""
        await self._do("quiet")

    async def hold(self) -> None:
        """Puts the far end on hold."""
        await self._do("hold")

    async def unhold(self) -> None:
        """Takes the far end back."""
        await self._do("unhold")

    async def refer(self, target: str, *, keep: bool = False) -> None:
        """Blind transfer of the far end; we hang up when the target answered, unless `keep`."""
        await self._do("refer", target=target, keep=keep)

    async def refer_to(self, other: "Call", *, keep: bool = False) -> None:
        """Attended transfer: our far end takes our place in `other`."""
        await self._do("refer_to", other=other.number, keep=keep)

    async def transferred(self, within_s: float) -> int:
        """Final status of our REFER, told by NOTIFY."""
        event = await self.event("transfer_status", within_s, final=True)
        return int(event.detail["code"])

    async def message(self, body: str) -> None:
        """MESSAGE in the dialog."""
        await self._do("message", body=body)

    async def hangup(self, code: int = 0, reason: str = "") -> None:
        """BYE, CANCEL before the answer, or a refusal of an incoming call. Nothing if it is over already."""
        if not self.over:
            try:
                await self._do("hangup", code=code, reason=reason)
            except PhoneError:
                if not self.over and not await self._ends_now():
                    raise

    async def _ends_now(self) -> bool:
        with contextlib.suppress(Missed):
            await self.ended(1)
        return self.over

    cancel = hangup

    async def _do(self, do: str, **arguments: object) -> Mapping[str, Any]:
        return await self.phone.do(do, call=self.number, **arguments)

    def __str__(self) -> str:
        return f"call {self.number} of {self.phone.name}"


class Phone(Reports):
    """A phone process. Use `async with Phone.start(...)`."""

    def __init__(self, options: dict[str, Any], folder: Path, own_folder: bool) -> None:
        super().__init__()
        self._options, self.folder, self._own_folder = options, folder, own_folder
        self.name = str(options["name"])
        self.calls: list[Call] = []
        self.bind = str(options["bind"])
        self.ports: dict[str, int] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._taken = 0  # incoming calls handed out by `incoming`

    @classmethod
    def start(
        cls,
        *,
        folder: Path | None = None,
        name: str = "",
        bind: str = "",
        port: int = 0,
        rtp_port: int = 40000,
        transports: Sequence[str] = ("udp", "tcp"),
        srtp: str = "off",
        codecs: Sequence[str] = ("PCMU/8000", "PCMA/8000"),
        **options: Any,
    ) -> "Phone":
        """A phone that starts on `async with`; further options are those of `tests.peers.phone.Options`."""
        own = folder is None
        folder = folder or Path(tempfile.mkdtemp(prefix="phone-"))
        made = {
            **options,
            "folder": str(folder),
            "name": name or f"phone{next(_serial)}",
            "bind": bind or own_address(),
            "port": port,
            "rtp_port": rtp_port,
            "transports": list(transports),
            "srtp": srtp,
            "codecs": list(codecs),
        }
        if "tls" in transports and not options.get("cert"):
            cert, key = make_certificate(folder)
            made |= {"cert": str(cert), "key": str(key)}
        return cls(made, folder, own)

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / f"{self.name}.log"
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.peers.phone", json.dumps(self._options),
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True, limit=1 << 22,
            )  # fmt: skip
        self._reader = asyncio.create_task(self._read(), name=f"reader of {self.name}")
        try:
            ready = await self.event("ready", 20)
        except BaseException:
            await self._end()
            raise
        self.ports = dict(ready.detail["ports"])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _end(self) -> None:
        assert self._process is not None
        if self._process.returncode is None and self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                os.killpg(self._process.pid, signal.SIGCONT)  # it may be frozen
                self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()
        if self._reader is not None:
            await self._reader
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "re" in message:
                if message.get("call") is not None and "path" in message:
                    self.calls.append(Call(self, message["call"], "out", Path(message["path"])))
                waiting = self._replies.pop(message["re"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
                continue
            self._take(
                Event(
                    t=message.pop("t"),
                    kind=message.pop("event"),
                    call=message.pop("call", None),
                    detail=message,
                )
            )
        self.gone = True
        for waiting in self._replies.values():
            if not waiting.done():
                waiting.set_exception(PhoneError(f"{self.name} has ended; its log: {self._log_tail()}"))
                waiting.exception()  # retrieved here: whoever waits gets it too
        self._ring_news()

    def _take(self, event: Event) -> None:
        new = {
            "incoming": event.call,
            "refer": event.detail.get("new_call"),
            "replaced": event.detail.get("new_call"),
        }
        number = new.get(event.kind)
        if number is not None:
            path = Path(self._options["folder"]) / f"{self.name}-{number}.wav"
            self.calls.append(Call(self, number, "out" if event.kind == "refer" else "in", path))
        super()._take(event)

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]

    @property
    def uri(self) -> str:
        """Where this phone is called directly, over UDP if it has it."""
        kind = next(kind for kind in ("udp", "tcp", "tls") if kind in self.ports)
        return self.uri_by(kind)

    def uri_by(self, transport: str) -> str:
        """The same over a given transport."""
        suffix = "" if transport == "udp" else f";transport={transport}"
        user = self._options.get("user") or self.name
        return f"sip:{user}@{self.bind}:{self.ports[transport]}{suffix}"

    @property
    def pid(self) -> int:
        """Process id, which is also that of its process group."""
        assert self._process is not None
        return self._process.pid

    async def do(self, do: str, **arguments: object) -> Mapping[str, Any]:
        """One command and its reply. Raises PhoneError when it is refused or takes over 10 s."""
        if self.gone or self._process is None or self._process.stdin is None:
            raise PhoneError(f"{self.name} is not running; its log: {self._log_tail()}")
        number = next(self._ids)
        waiting = self._replies[number] = asyncio.get_running_loop().create_future()
        try:
            self._process.stdin.write(json.dumps({"do": do, "id": number, **arguments}).encode() + b"\n")
            await self._process.stdin.drain()
            reply: dict[str, Any] = await asyncio.wait_for(waiting, 10)
        except (ConnectionError, TimeoutError) as error:
            raise PhoneError(f"{self.name} did not take {do!r} within 10 s: {self._log_tail()}") from error
        finally:
            self._replies.pop(number, None)
        if not reply["ok"]:
            raise PhoneError(f"{self.name} refused {do!r}: {reply['error']}")
        return reply

    async def register(
        self,
        user: str,
        password: str,
        server: str,
        *,
        domain: str = "",
        realm: str = "*",
        transport: str = "udp",
        within_s: float = 5,
        **more: object,
    ) -> Event:
        """Registers at `server` (address:port). Raises Missed when it refuses or does not answer."""
        code = await self.try_register(
            user, password, server, domain=domain, realm=realm, transport=transport, within_s=within_s, **more
        )
        if code.kind != "registered":
            raise Missed(f"{self.name} could not register: {code.detail['code']} {code.detail['reason']}")
        return code

    async def try_register(
        self, user: str, password: str, server: str, *, within_s: float = 5, **more: object
    ) -> Event:
        """The same, giving the outcome: an event "registered" or "unregistered" with its `code`."""
        seen = len(self.events)
        await self.do("register", user=user, password=password, server=server, **more)

        def check() -> Event | None:
            return next((e for e in self.events[seen:] if e.kind in ("registered", "unregistered")), None)

        return await self.until(check, within_s, f"{self.name} registered")

    async def unregister(self, within_s: float = 5) -> Event:
        """Takes the contact back."""
        seen = len(self.events)
        await self.do("unregister")

        def check() -> Event | None:
            return next((e for e in self.events[seen:] if e.kind == "unregistered"), None)

        return await self.until(check, within_s, f"{self.name} unregistered")

    async def dial(
        self,
        uri: str,
        *,
        headers: Mapping[str, str] | None = None,
        from_uri: str = "",
        tone_hz: float | Sequence[float] = 0,
        dbfs: float = -15.0,
        late_offer: bool = False,
    ) -> Call:
        """Sends an INVITE and plays `tone_hz`, if any; a bare user gets the registered domain."""
        reply = await self.do(
            "dial", uri=uri, headers=dict(headers or {}), from_uri=from_uri, tone_hz=tone_hz, dbfs=dbfs,
            late_offer=late_offer,
        )  # fmt: skip
        return self.call(int(reply["call"]))

    def call(self, number: int) -> Call:
        """The call with that number. Raises KeyError."""
        for call in self.calls:
            if call.number == number:
                return call
        raise KeyError(f"{self.name} has no call {number}")

    async def incoming(self, within_s: float) -> Call:
        """The next incoming call that was not handed out yet. Raises Missed."""

        def check() -> Call | None:
            waiting = [event for event in self.events if event.kind == "incoming"][self._taken :]
            if not waiting or waiting[0].call is None:
                return None
            self._taken += 1
            return self.call(waiting[0].call)

        return await self.until(check, within_s, f"incoming call of {self.name}")

    async def no_incoming(self, for_s: float) -> None:
        """Nothing rings for that long; else raises Missed."""
        try:
            call = await self.incoming(for_s)
        except Missed:
            return
        raise Missed(f"{call} rang although nothing should")

    async def referred(self, call: Call, within_s: float) -> Call:
        """The call this phone made because the far end of `call` sent REFER."""
        event = await call.event("refer", within_s)
        return self.call(int(event.detail["new_call"]))

    async def replaced(self, call: Call, within_s: float) -> Call:
        """The call that took the place of `call` by an INVITE with Replaces."""
        event = await call.event("replaced", within_s)
        return self.call(int(event.detail["new_call"]))

    async def answer_calls(
        self, after_s: float = 0.0, *, tone_hz: float | Sequence[float] = 0, ring: bool = True
    ) -> None:
        """Later calls ring (180) and are answered after `after_s` seconds; they hear `tone_hz`, if any."""
        await self.do("policy", kind="answer", after_s=after_s, tone_hz=tone_hz, ring=ring)

    async def refuse_calls(self, code: int = 486) -> None:
        """Later calls get this final response: 486 busy, 603 decline, 480 ..."""
        await self.do("policy", kind="refuse", code=code)

    async def ring_only(self) -> None:
        """Later calls ring and are never answered."""
        await self.do("policy", kind="ring")

    async def leave_calls(self) -> None:
        """Later calls wait for `Call.answer` or `Call.respond` (the policy at start)."""
        await self.do("policy", kind="manual")

    async def refuse_refer(self, code: int) -> None:
        """Later REFERs are refused with this code; 0 accepts them."""
        await self.do("refuse_refer", code=code)

    async def vanish(self) -> None:
        """The power plug is pulled: the process ends without BYE."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        await asyncio.wait_for(self._process.wait(), 5)

    def freeze(self) -> None:
        """The process stops answering anything (SIGSTOP) until `thaw`."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on (SIGCONT)."""
        os.killpg(self.pid, signal.SIGCONT)
