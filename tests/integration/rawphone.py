"""A SIP phone of plain sockets for tests: every message is written by hand, so it can also be wrong.

No retransmissions, no digest, PCMU only. What a call hears is kept as samples; what it says is a tone.
"""

import asyncio
import itertools
import random
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from tests.peers import tones

_numbers = itertools.count(random.randrange(10_000))
FRAME = 160  # samples in 20 ms


@dataclass(frozen=True)
class Sip:
    """A message as received."""

    start: str
    fields: list[tuple[str, str]]
    body: str
    source: tuple[str, int]

    @classmethod
    def read(cls, raw: bytes, source: tuple[str, int]) -> "Sip":
        """Split a datagram."""
        head, _, body = raw.decode(errors="replace").partition("\r\n\r\n")
        lines = head.split("\r\n")
        fields = [(n.strip().lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines[1:])]
        return cls(lines[0], fields, body, source)

    def get(self, name: str) -> str:
        """First value of a header, or empty."""
        return next((v for n, v in self.fields if n == name.lower()), "")

    def all(self, name: str) -> list[str]:
        """All values of a header."""
        return [v for n, v in self.fields if n == name.lower()]

    @property
    def status(self) -> int:
        """Status code of a response, 0 for a request."""
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0 ") else 0

    @property
    def method(self) -> str:
        """Method of a request, or of the request a response answers."""
        return self.get("cseq").split()[-1] if self.status else self.start.split()[0]


class Media(asyncio.DatagramProtocol):
    """One RTP socket: says a tone, keeps what it hears."""

    def __init__(self) -> None:
        self.port = 0
        self.remote: tuple[str, int] | None = None
        self.received: list[tuple[float, bytes]] = []
        self._hz = 0.0
        self._sequence = random.randrange(1000)
        self._stamp = 0
        self._ssrc = random.randrange(1 << 31)
        self._phase = 0
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def open(cls, address: str = "127.0.0.1") -> Self:
        """Bind a free port."""
        transport, media = await asyncio.get_running_loop().create_datagram_endpoint(
            cls, local_addr=(address, 0)
        )
        media._transport = transport
        media.port = transport.get_extra_info("sockname")[1]
        return media

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Keep RTP packets."""
        if len(data) >= 12 and data[0] & 0xC0 == 0x80:
            self.received.append((time.monotonic(), data))

    def say(self, hz: float) -> None:
        """Send a tone of `hz` (0: silence) from now on."""
        self._hz = hz
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def be_silent(self) -> None:
        """Send nothing any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            self.send(0, self._frame())
            due += 0.02
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _frame(self) -> bytes:
        t = (np.arange(FRAME) + self._phase) / 8000
        self._phase += FRAME
        return tones.to_ulaw(np.round(8000 * np.sin(2 * np.pi * self._hz * t)).astype(np.int16))

    def send(
        self, payload_type: int, payload: bytes, *, marker: bool = False, hold_stamp: bool = False
    ) -> None:
        """One RTP packet; `hold_stamp` repeats the timestamp, as all packets of one key do (RFC 4733)."""
        if not hold_stamp:
            self._stamp += FRAME
        self._sequence = (self._sequence + 1) & 0xFFFF
        first, second = 0x80, payload_type | (0x80 if marker else 0)
        head = struct.pack("!BBHII", first, second, self._sequence, self._stamp & 0xFFFFFFFF, self._ssrc)
        self.raw(head + payload)

    def raw(self, data: bytes) -> None:
        """Any datagram to where our audio goes."""
        if self._transport is not None and self.remote is not None and not self._transport.is_closing():
            self._transport.sendto(data, self.remote)

    async def press(self, digit: str, payload_type: int, *, ms: int = 100) -> None:
        """A key as RFC 4733 section 2.5 wants it: begin, updates, three end packets."""
        event = "0123456789*#ABCD".index(digit)
        for step in range(1, ms // 20 + 1):
            body = struct.pack("!BBH", event, 10, step * FRAME)
            self.send(payload_type, body, marker=step == 1, hold_stamp=step > 1)
            await asyncio.sleep(0.02)
        for _ in range(3):
            self.send(payload_type, struct.pack("!BBH", event, 0x80 | 10, ms * 8), hold_stamp=True)

    def heard(self, last_ms: int | None = None) -> tones.Audio:
        """Samples received so far, in order of arrival; only the last `last_ms` when given."""
        since = 0.0 if last_ms is None else time.monotonic() - last_ms / 1000
        parts = [data[12:] for at, data in self.received if data[1] & 0x7F == 0 and at >= since]
        return tones.from_ulaw(b"".join(parts))

    def close(self) -> None:
        """Stop and unbind."""
        self.be_silent()
        if self._transport is not None:
            self._transport.close()


@dataclass
class Dialog:
    """One call of a RawPhone, either direction."""

    phone: "RawPhone"
    target: tuple[str, int]
    uri: str
    local: str  # From or To value of ours, with tag
    remote: str
    call_id: str
    media: Media
    outgoing: bool
    cseq: int = 1
    branch: str = ""
    invite: Sip | None = None
    inbox: "asyncio.Queue[Sip]" = field(default_factory=asyncio.Queue)
    requests: list[Sip] = field(default_factory=list)
    responses: list[Sip] = field(default_factory=list)
    event_type: int = 101
    rtcp_port: int = 0  # where RTCP comes from and goes to (RFC 3605); 0: the next after RTP's

    @property
    def contact(self) -> str:
        """Where the engine reaches us."""
        return f"<sip:raw@127.0.0.1:{self.phone.port}>"

    def sdp(self, *, direction: str = "sendrecv", codecs: str = "0 101") -> str:
        """An offer or answer with PCMU and telephone-event."""
        rtcp = f"a=rtcp:{self.rtcp_port}\r\n" if self.rtcp_port else ""
        return (
            f"v=0\r\no=- {next(_numbers)} {next(_numbers)} IN IP4 127.0.0.1\r\ns=-\r\n"
            f"c=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {self.media.port} RTP/AVP {codecs}\r\n"
            f"a=rtpmap:{self.event_type} telephone-event/8000\r\na=fmtp:{self.event_type} 0-15\r\n"
            f"{rtcp}a=ptime:20\r\na={direction}\r\n"
        )

    def request(
        self,
        method: str,
        body: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        same: bool = False,
        content_type: str = "application/sdp",
    ) -> None:
        """Send a request in the dialog; `same` keeps branch and CSeq (CANCEL)."""
        if not same:
            self.branch = f"z9hG4bK{next(_numbers)}x{random.randrange(1 << 30)}"
            if method != "ACK":
                self.cseq += 1
        lines = [
            f"{method} {self.uri} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.phone.port};branch={self.branch};rport",
            "Max-Forwards: 70",
            f"From: {self.local}",
            f"To: {self.remote}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {self.cseq} {method}",
            *(
                f"{name}: {value}"
                for name, value in ({"Contact": self.contact} | dict(headers or {})).items()
            ),
        ]
        if body:
            lines.append(f"Content-Type: {content_type}")
        lines.append(f"Content-Length: {len(body.encode())}")
        self.phone.send("\r\n".join(lines) + "\r\n\r\n" + body, self.target)

    async def response(self, status: int, method: str = "INVITE", within_s: float = 5.0) -> Sip:
        """Wait for a response with this status (hundreds match: 2 is any 2xx)."""
        return await self.wait(
            lambda m: m.status != 0 and m.method == method and status in (m.status, m.status // 100), within_s
        )

    async def incoming(self, method: str, within_s: float = 5.0) -> Sip:
        """Wait for a request of the engine in this dialog."""
        return await self.wait(lambda m: m.status == 0 and m.method == method, within_s)

    async def wait(self, wanted: Callable[[Sip], bool], within_s: float) -> Sip:
        """Wait for a message; others are passed over. Raises AssertionError naming what came instead."""
        passed: list[str] = []
        try:
            async with asyncio.timeout(within_s):
                while True:
                    message = await self.inbox.get()
                    if wanted(message):
                        return message
                    passed.append(message.start)
        except TimeoutError:
            raise AssertionError(f"nothing of the kind within {within_s} s, only {passed}") from None

    async def connect(self, **headers: str) -> Sip:
        """INVITE, 200, ACK; returns the 200."""
        self.request("INVITE", self.sdp(), {n.replace("_", "-"): v for n, v in headers.items()})
        ok = await self.response(200)
        self.ack(ok)
        return ok

    def take_answer(self, message: Sip) -> None:
        """Learn the To tag, Contact and media address from a response or request."""
        if message.status and self.outgoing:
            self.remote = message.get("to")
        contact = message.get("contact")
        if contact:
            self.uri = contact.partition("<")[2].partition(">")[0]
        for line in message.body.split("\r\n"):
            if line.startswith("m=audio "):
                self.media.remote = ("127.0.0.1", int(line.split()[1]))

    def ack(self, ok: Sip) -> None:
        """ACK a 2xx."""
        self.take_answer(ok)
        self.cseq = int(ok.get("cseq").split()[0])
        self.request("ACK")

    def cancel(self) -> None:
        """CANCEL the INVITE last sent."""
        self.request("CANCEL", same=True)

    async def hang_up(self) -> Sip:
        """BYE and its 200."""
        self.request("BYE")
        return await self.response(200, "BYE")

    def respond(
        self, request: Sip, status: int, body: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer a request of the engine."""
        to = request.get("to")
        if ";tag=" not in to:
            to = self.local
        lines = [
            f"SIP/2.0 {status} Whatever",
            *(f"Via: {value}" for value in request.all("via")),
            *(f"Record-Route: {value}" for value in request.all("record-route")),
            f"From: {request.get('from')}",
            f"To: {to}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {request.get('cseq')}",
            f"Contact: {self.contact}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        lines.append(f"Content-Length: {len(body.encode())}")
        self.phone.send("\r\n".join(lines) + "\r\n\r\n" + body, request.source)

    def answer(self, status: int = 200) -> None:
        """Answer the INVITE that made this dialog, with SDP when it is 2xx or 183."""
        assert self.invite is not None
        self.respond(self.invite, status, self.sdp() if status // 100 == 2 or status == 183 else "")


class RawPhone(asyncio.DatagramProtocol):
    """A socket with dialogs. What `auto` names is answered with 200, CANCEL with 200 and 487."""

    def __init__(self) -> None:
        self.port = 0
        self.mute = False  # a phone that vanished: hears everything, says nothing
        self.obeys_cancel = True
        self.auto = frozenset({"BYE", "OPTIONS", "INFO", "NOTIFY", "UPDATE", "PRACK"})
        self.dialogs: dict[str, Dialog] = {}
        self.calls: asyncio.Queue[Dialog] = asyncio.Queue()
        self.strays: list[Sip] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._media: list[Media] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, address: str = "127.0.0.1") -> Self:
        """Bind a free port."""
        transport, phone = await asyncio.get_running_loop().create_datagram_endpoint(
            cls, local_addr=(address, 0)
        )
        phone._transport = transport
        phone.port = transport.get_extra_info("sockname")[1]
        return phone

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await asyncio.sleep(0)

    def close(self) -> None:
        """Unbind everything."""
        for media in self._media:
            media.close()
        if self._transport is not None:
            self._transport.close()

    def send(self, message: str | bytes, target: tuple[str, int]) -> None:
        """Send any bytes."""
        if self._transport is not None and not self.mute:
            self._transport.sendto(message.encode() if isinstance(message, str) else message, target)

    async def call(self, target: tuple[str, int], user: str = "line", *, caller: str = "raw") -> Dialog:
        """A dialog to be: nothing is sent yet."""
        number = next(_numbers)
        media = await Media.open()
        self._media.append(media)
        dialog = Dialog(
            phone=self,
            target=target,
            uri=f"sip:{user}@{target[0]}:{target[1]}",
            local=f"<sip:{caller}@127.0.0.1>;tag=t{number}",
            remote=f"<sip:{user}@{target[0]}>",
            call_id=f"raw-{number}-{random.randrange(1 << 40)}",
            media=media,
            outgoing=True,
        )
        self.dialogs[dialog.call_id] = dialog
        return dialog

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Route a message to its dialog, make one for an INVITE."""
        if self.mute:
            return
        message = Sip.read(data, addr)
        dialog = self.dialogs.get(message.get("call-id"))
        if dialog is None:
            if message.method == "INVITE" and not message.status:
                task = asyncio.create_task(self._ringing(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self.strays.append(message)
            return
        if message.status:
            dialog.responses.append(message)
        else:
            dialog.requests.append(message)
            if message.method in self.auto:
                dialog.respond(message, 200)
            elif message.method == "CANCEL" and self.obeys_cancel:
                dialog.respond(message, 200)
                dialog.answer(487)
        dialog.inbox.put_nowait(message)

    async def _ringing(self, message: Sip) -> None:
        if message.get("call-id") in self.dialogs:
            return
        media = Media()
        dialog = Dialog(
            phone=self,
            target=message.source,
            uri="",
            local=f"{message.get('to')};tag=u{next(_numbers)}",
            remote=message.get("from"),
            call_id=message.get("call-id"),
            media=media,
            outgoing=False,
            invite=message,
        )
        self.dialogs[dialog.call_id] = dialog  # before any await, so a CANCEL finds it
        opened = await Media.open()
        dialog.media = opened
        self._media.append(opened)
        dialog.take_answer(message)
        self.calls.put_nowait(dialog)

    async def next_call(self, within_s: float = 5.0) -> Dialog:
        """The next INVITE from the engine."""
        async with asyncio.timeout(within_s):
            return await self.calls.get()
