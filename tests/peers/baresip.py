"""Baresip (Debian's baresip-core) as a second, independent SIP implementation beside pjsua2.

    async with Baresip.start(folder=tmp_path, name="desk", tone_hz=440) as desk:
        call = await desk.dial("sip:100@127.0.0.1:5060")

It is driven through its `ctrl_tcp` module (netstrings of JSON). Received audio is dumped by `sndfile`, whose
file names hold the time in seconds only: one call at a time a process, no two started in one second. It sends
keys as RFC 4733 only, and a tone of `ausine` or the file given as `wav`, followed by five minutes of silence
because Baresip hangs up at the end of a file. After a hold Baresip 1.0 takes no more dumps of the call
(`packets_received` still counts).
"""

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from tests.peers import tones
from tests.peers.ears import POLL_S, Ears
from tests.peers.waiting import Event, Missed, Reports, free_port, make_certificate

PROGRAM = "/usr/bin/baresip"
MODULES = Path("/usr/lib/baresip/modules")
SRTP = {"off": "", "optional": "srtp", "mandatory": "srtp-mand"}

# ctrl_tcp's event types, in the words of `tests.peers.phones`
_KINDS = {
    "CALL_INCOMING": "incoming",
    "CALL_RINGING": "ringing",
    "CALL_PROGRESS": "progress",
    "CALL_ESTABLISHED": "answered",
    "CALL_RTPESTAB": "media",
    "CALL_DTMF_START": "digit",
    "CALL_CLOSED": "ended",
    "CALL_TRANSFER": "refer",
    "CALL_TRANSFER_FAILED": "transfer_failed",
    "REGISTER_OK": "registered",
    "REGISTER_FAIL": "register_failed",
    "MWI_NOTIFY": "mwi",
}


class BaresipError(RuntimeError):
    """Baresip is missing, refused a command or has gone away."""


class BaresipCall(Ears):
    """The one call Baresip has at a time."""

    def __init__(self, phone: "Baresip", number: int, direction: str, peer: str, recording: Path) -> None:
        self.phone, self.number, self.direction, self.peer = phone, number, direction, peer
        self.recording = recording  # no file until media began; `audio` and `recorded` look for it

    @property
    def events(self) -> list[Event]:
        """All reports about this call so far."""
        return [event for event in self.phone.events if event.call == self.number]

    @property
    def digits(self) -> str:
        """Keys received from the far end so far (RFC 4733)."""
        return "".join(event.detail["param"] for event in self.events if event.kind == "digit")

    @property
    def over(self) -> bool:
        """The dialog has ended."""
        return any(event.kind == "ended" for event in self.events)

    def audio(self) -> tones.Audio:
        """All samples received so far."""
        self.phone.claim_recordings()
        return super().audio()

    async def hears_silence(self, for_ms: int, within_s: float, *, hz: float | None = None) -> None:
        """No sound, or no `hz`, for `for_ms` from now on; the dump does not grow while no packets arrive."""
        loop = asyncio.get_running_loop()
        deadline, quiet_since, start = loop.time() + within_s, loop.time(), self.position_ms()
        while loop.time() - quiet_since < for_ms / 1000:
            if loop.time() > deadline:
                raise Missed(f"{self} heard {hz or 'sound'} within {within_s} s, never {for_ms} ms without")
            await asyncio.sleep(POLL_S)
            new = self.audio()[start * 8 :]
            if len(new) and (tones.heard(new, hz).fraction > 0 if hz else not tones.is_silent(new)):
                quiet_since, start = loop.time(), self.position_ms()

    async def recorded(self, within_s: float = 5) -> Path:
        """The call is over and its recording complete. Raises Missed when there was never any media."""
        await self.ended(within_s)
        if not len(self.audio()):
            raise Missed(f"{self} never had media, so there is no recording")
        return self.recording

    def _deaf(self) -> str:
        return "the call is over" if self.over or self.phone.gone else ""

    async def event(self, kind: str, within_s: float, **detail: object) -> Event:
        """The first report of that kind about this call. Raises Missed."""
        return await self.phone.event(kind, within_s, call=self.number, **detail)

    async def ringing(self, within_s: float) -> Event:
        """180 arrived."""
        return await self.event("ringing", within_s)

    async def answered(self, within_s: float) -> None:
        """The dialog is confirmed. Raises Missed, at once if the call ends instead."""

        def check() -> bool | None:
            ended = next((e for e in self.events if e.kind == "ended"), None)
            if any(e.kind == "answered" for e in self.events):
                return True
            if ended is not None:
                raise Missed(f"{self} was not answered: it ended with {ended.detail['param']!r}")
            return None

        await self.phone.until(check, within_s, f"{self} answered")

    async def ended(self, within_s: float) -> str:
        """The dialog is over; Baresip's own words why."""
        return str((await self.event("ended", within_s)).detail["param"])

    async def received_digits(self, digits: str, within_s: float) -> None:
        """The far end pressed exactly these keys by then; more or others raise Missed."""
        await self.phone.until(
            lambda: True if len(self.digits) >= len(digits) else None, within_s, f"{self} received the digits"
        )
        if self.digits != digits:
            raise Missed(f"{self} received the digits {self.digits!r} instead of {digits!r}")

    async def answer(self) -> None:
        """200 to an incoming call that waits (`answer="manual"`)."""
        await self.phone.do("accept")

    async def packets_received(self) -> int:
        """RTP packets received since the stream began or changed last."""
        found = re.search(r"rcvd=(\d+)", await self.phone.do("audio_debug"))
        return int(found[1]) if found else 0

    async def press(self, digits: str, *, pause_s: float = 0.12) -> None:
        """Presses keys one after the other, as RFC 4733 events."""
        for digit in digits:
            await self.phone.do("sndcode", digit)
            await asyncio.sleep(pause_s)
            await self.phone.do("sndcode", "\x04")  # key released
            await asyncio.sleep(pause_s)

    async def hold(self) -> None:
        """Puts the far end on hold."""
        await self.phone.do("hold")

    async def unhold(self) -> None:
        """Takes the far end back."""
        await self.phone.do("resume")

    async def refer(self, target: str) -> None:
        """Blind transfer of the far end."""
        await self.phone.do("transfer", target)

    async def hangup(self) -> None:
        """BYE, CANCEL or a refusal. Nothing if it is over already."""
        if not self.over:
            await self.phone.do("hangup")

    def __str__(self) -> str:
        return f"call {self.number} of {self.phone.name}"


class Baresip(Reports):
    """A Baresip process. Use `async with Baresip.start(...)`."""

    def __init__(
        self, folder: Path, own_folder: bool, name: str, bind: str, lines: Sequence[str], account: str
    ) -> None:
        super().__init__()
        self.folder, self.name, self.bind = folder, name, bind
        self._own_folder, self._lines, self._account = own_folder, lines, account
        self.calls: list[BaresipCall] = []
        self.port = self._control_port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None
        self._tokens = itertools.count(1)
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._numbers: dict[str, int] = {}  # Baresip's call id to ours
        self._dialled: BaresipCall | None = None  # waits for its id
        self._taken = 0
        self._domain = ""

    @classmethod
    def start(
        cls,
        *,
        folder: Path | None = None,
        name: str = "baresip",
        bind: str = "",
        tone_hz: int = 440,
        wav: Path | None = None,
        answer: str = "auto",
        srtp: str = "off",
        codecs: Sequence[str] = ("PCMU", "PCMA"),
        rtp_ports: tuple[int, int] = (42000, 42200),
    ) -> "Baresip":
        """A Baresip that starts on `async with`.

        Without `bind` it is 127.0.0.1: it sends media from there whatever its address is, and an engine that
        takes media only from where the SDP says hears nothing of any other.

        `answer` is auto or manual; `wav` (8 kHz mono) is played instead of the tone. Raises BaresipError when
        the program or one of its modules is missing.
        """
        source = "aufile,source.wav" if wav else f"ausine,{tone_hz}"
        modules = ["stdio", "g711", "ausine", "aufile", "sndfile", "srtp", "uuid"]
        missing = [
            module
            for module in [*modules, "account", "menu", "ctrl_tcp"]
            if not (MODULES / f"{module}.so").exists()
        ]
        if missing or not Path(PROGRAM).exists():
            raise BaresipError(f"{PROGRAM} or its modules {missing} are missing: apt install baresip-core")
        own = folder is None
        folder = (folder or Path(tempfile.mkdtemp(prefix="baresip-"))) / name
        lines = [
            "poll_method epoll",
            f"module_path {MODULES}",
            *(f"module {module}.so" for module in modules),
            "module_tmp account.so",
            "module_app menu.so",
            "module_app ctrl_tcp.so",
            f"audio_source {source}",
            f"ausrc_srate {8000 if wav else 48000}",
            f"ausrc_channels {1 if wav else 2}",
            f"rtp_ports {rtp_ports[0]}-{rtp_ports[1]}",
            f"snd_path {folder}",
            "call_max_calls 1",
            "ringback_disabled yes",
        ]
        if answer not in ("auto", "manual"):
            raise BaresipError(f"answer {answer!r} is neither auto nor manual")
        media = f";mediaenc={SRTP[srtp]}" if SRTP[srtp] else ""
        account = f";answermode={answer}{media};audio_codecs={','.join(codecs)}"
        made = cls(folder, own, name, bind or "127.0.0.1", lines, account)
        if wav:
            folder.mkdir(parents=True, exist_ok=True)
            sound = np.concatenate([tones.load(wav), tones.silence(300_000)])
            tones.write_wav(folder / "source.wav", sound)
        return made

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port(self.bind)
        self._control_port = free_port(self.bind, socket.SOCK_STREAM)
        cert, key = make_certificate(self.folder)
        (self.folder / "tls.pem").write_text(key.read_text() + cert.read_text())
        own = [
            f"sip_listen {self.bind}:{self.port}",
            f"sip_certificate {self.folder / 'tls.pem'}",
            f"net_interface {self.bind}",
            f"ctrl_tcp_listen {self.bind}:{self._control_port}",
        ]
        (self.folder / "config").write_text("\n".join([*own, *self._lines]) + "\n")
        (self.folder / "accounts").write_text(f"<{self.uri}>;regint=0{self._account}\n")
        (self.folder / "contacts").write_text("")
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                PROGRAM, "-f", str(self.folder),
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        try:
            reader, self._writer = await self._connect(10)
        except BaseException:
            await self._end()
            raise
        self._reader = asyncio.create_task(self._read(reader), name=f"reader of {self.name}")
        return self

    async def _connect(self, within_s: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            try:
                return await asyncio.open_connection(self.bind, self._control_port)
            except ConnectionError as error:
                assert self._process is not None
                if self._process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                    raise BaresipError(
                        f"{self.name} does not open its control port: {self._log_tail()}"
                    ) from error
                await asyncio.sleep(0.05)

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _end(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)  # sends BYE and un-registers
            try:
                await asyncio.wait_for(self._process.wait(), 4)
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._reader is not None:
            await self._reader
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
        if self._own_folder:
            shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int((await reader.readuntil(b":"))[:-1])
                message = json.loads(await reader.readexactly(length))
                await reader.readexactly(1)
                if message.get("response"):
                    waiting = self._replies.pop(message.get("token", ""), None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                elif message.get("event"):
                    self._note(message)
        self.gone = True
        for waiting in self._replies.values():
            waiting.cancel()
        self._ring_news()

    def _note(self, message: Mapping[str, Any]) -> None:
        """Turns one of ctrl_tcp's events into ours."""
        kind = _KINDS.get(message.get("type", ""), message.get("type", "?").lower())
        number = self._call_number(message)
        self._take(Event(t=time.time(), kind=kind, call=number, detail={"param": "", **message}))

    def _call_number(self, message: Mapping[str, Any]) -> int | None:
        baresip_id = message.get("id")
        if baresip_id is None:
            return self._dialled.number if message.get("class") == "call" and self._dialled else None
        if baresip_id not in self._numbers:
            if message.get("direction") == "outgoing" and self._dialled is not None:
                call, self._dialled = self._dialled, None
            else:
                call = self._new_call(
                    str(message.get("direction", "incoming"))[:2], str(message.get("peeruri", ""))
                )
            self._numbers[baresip_id] = call.number
        return self._numbers[baresip_id]

    def _new_call(self, direction: str, peer: str) -> BaresipCall:
        call = BaresipCall(self, len(self.calls) + 1, direction, peer, self.folder / "no-recording.wav")
        self.calls.append(call)
        return call

    def claim_recordings(self) -> None:
        """Gives each call that had media its dump, in order: there is one call at a time."""
        files = sorted(self.folder.glob("dump-*-dec.wav"))
        had_media = [
            call for call in self.calls if {"answered", "media"} & {event.kind for event in call.events}
        ]
        for call, path in zip(had_media, files, strict=False):
            call.recording = path

    @property
    def uri(self) -> str:
        """Where it is called directly, over UDP."""
        return f"sip:{self.name}@{self.bind}:{self.port}"

    def uri_by(self, transport: str) -> str:
        """The same over tcp or tls; Baresip's TLS port is the next one."""
        port = self.port + (transport == "tls")
        return f"sip:{self.name}@{self.bind}:{port};transport={transport}"

    async def do(self, command: str, parameters: str = "") -> str:
        """One command of Baresip's menu and its output. Raises BaresipError when it fails or takes 5 s."""
        if self.gone or self._writer is None:
            raise BaresipError(f"{self.name} is not running; its log: {self._log_tail()}")
        token = str(next(self._tokens))
        waiting = self._replies[token] = asyncio.get_running_loop().create_future()
        asked = json.dumps({"command": command, "params": parameters, "token": token}).encode()
        self._writer.write(b"%d:%s," % (len(asked), asked))
        try:
            reply = await asyncio.wait_for(waiting, 5)
        except TimeoutError as error:
            raise BaresipError(
                f"{self.name} did not take {command!r} within 5 s: {self._log_tail()}"
            ) from error
        finally:
            self._replies.pop(token, None)
        if not reply.get("ok"):
            raise BaresipError(f"{self.name} refused {command!r}: {reply.get('data')}")
        return str(reply.get("data", ""))

    async def register(
        self,
        user: str,
        password: str,
        server: str,
        *,
        domain: str = "",
        transport: str = "udp",
        expires_s: int = 300,
        within_s: float = 5,
    ) -> Event:
        """Registers at `server` (address:port) and calls from that account afterwards.

        Raises Missed when the registrar refuses or does not answer.
        """
        event = await self.try_register(
            user, password, server, domain=domain, transport=transport, expires_s=expires_s, within_s=within_s
        )
        if event.kind != "registered":
            raise Missed(f"{self.name} could not register: {event.detail['param']}")
        return event

    async def try_register(
        self,
        user: str,
        password: str,
        server: str,
        *,
        domain: str = "",
        transport: str = "udp",
        expires_s: int = 300,
        within_s: float = 5,
    ) -> Event:
        """The same, giving the outcome: an event "registered" or "register_failed"."""
        seen, self._domain = len(self.events), domain or server
        aor = f"sip:{user}@{self._domain}"
        route = f'"sip:{server};transport={transport}"'
        account = f"<{aor};transport={transport}>;auth_user={user};auth_pass={password};outbound={route}"
        await self.do("uanew", f"{account};regint={expires_s}{self._account}")

        def check() -> Event | None:
            done = ("registered", "register_failed")
            return next((event for event in self.events[seen:] if event.kind in done), None)

        event = await self.until(check, within_s, f"{self.name} registered")
        await self.do("uafind", aor)
        return event

    async def dial(self, uri: str) -> BaresipCall:
        """Sends an INVITE; a bare user is completed with the registered domain."""
        call = self._dialled = self._new_call("out", uri)
        await self.do("dial", uri if uri.startswith("sip") else f"sip:{uri}@{self._domain}")
        return call

    async def incoming(self, within_s: float) -> BaresipCall:
        """The next incoming call that was not handed out yet, ringing or answered already. Raises Missed."""

        def check() -> BaresipCall | None:
            waiting = [call for call in self.calls if call.direction == "in"][self._taken :]
            return waiting[0] if waiting else None

        call = await self.until(check, within_s, f"incoming call of {self.name}")
        self._taken += 1
        return call
