"""The clinicians' phones of the benchmark: a minimal SIP UAS (RFC 3261), hundreds of legs on one UDP socket.

It stands where the edge stands: the server under test dials any user at its address. Each INVITE gets 180,
then 200 with a media port of its own; the media is rtpload's, which presses 1 after the first words. Arrival
times of INVITEs are the kernel's, on the clock rtpload uses. Retransmissions are counted on both sides. Not
here: digest, TLS, transfer.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python's socket module does not name it
T1_S = 0.5  # RFC 3261 17.1.1.1
T2_S = 4.0
_COMPACT = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "c": "content-type",
    "l": "content-length",
}


@dataclass
class PhoneCall:
    """One dialog of a clinician's phone."""

    media_port: int
    invite_ns: int  # kernel's arrival time of the first INVITE, CLOCK_REALTIME
    dialled: str  # user part of the Request-URI
    peer: tuple[str, int]  # where its requests come from
    rtp: tuple[str, int, int]  # address, port, telephone-event payload type of the server
    caller_from: str
    our_to: str
    target: str  # their Contact: Request-URI of our BYE
    routes: list[str]
    final: bytes = b""  # our 200, for retransmission
    confirmed: bool = False
    over: bool = False
    their_repeats: int = 0  # requests the server sent again
    our_repeats: int = 0  # messages we had to send again
    timer: asyncio.TimerHandle | None = None


@dataclass
class PhoneBank:
    """All clinicians' phones.

    `on_media(our port, address, port, event payload type)` starts a leg, `on_over(our port)` ends it.
    """

    address: str
    port: int
    media_ports: Sequence[int]
    on_media: Callable[[int, str, int, int], None]
    on_over: Callable[[int], None]
    answer_after_s: float = 0.2
    calls: dict[str, PhoneCall] = field(default_factory=dict)  # by Call-ID, all of this bank's life
    refused: int = 0  # INVITEs beyond the media ports
    _free: list[int] = field(default_factory=list)
    _socket: socket.socket | None = None

    def __enter__(self) -> "PhoneBank":
        self._free = list(reversed(self.media_ports))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.setblocking(False)
        self._socket.bind((self.address, self.port))
        asyncio.get_running_loop().add_reader(self._socket, self._readable)
        return self

    def __exit__(self, *_: object) -> None:
        for call in self.calls.values():
            self._disarm(call)
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    @property
    def talking(self) -> int:
        """Phones with a confirmed call."""
        return sum(call.confirmed and not call.over for call in self.calls.values())

    @property
    def our_repeats(self) -> int:
        """Messages the phones had to send again: the server was too slow for them."""
        return sum(call.our_repeats for call in self.calls.values())

    def by_port(self) -> dict[int, PhoneCall]:
        """The latest call of each media port."""
        return {call.media_port: call for call in self.calls.values()}

    async def hang_up_all(self, per_s: float, within_s: float) -> bool:
        """BYE to every call; true when the server confirmed them all in time."""
        for call_id, call in list(self.calls.items()):
            if call.confirmed and not call.over:
                self._repeat(call, self._bye(call_id, call), T1_S)
                await asyncio.sleep(1 / per_s)
        for _ in range(round(within_s / 0.05)):
            if not self.talking:
                break
            await asyncio.sleep(0.05)
        return self.talking == 0

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(64):
            try:
                data, control, _flags, peer = self._socket.recvmsg(65535, 64)
            except BlockingIOError:
                return
            arrival_ns = 0
            for level, kind, value in control:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = struct.unpack("@ll", value[:16])
                    arrival_ns = seconds * 1_000_000_000 + nanoseconds
            self._take(data, peer, arrival_ns)

    def _send(self, data: bytes, peer: tuple[str, int]) -> None:
        assert self._socket is not None
        self._socket.sendto(data, peer)

    def _take(self, data: bytes, peer: tuple[str, int], arrival_ns: int) -> None:
        head, _, body = data.decode(errors="replace").partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            headers.setdefault(_COMPACT.get(name, name), []).append(value.strip())
        if not all(name in headers for name in ("via", "from", "to", "call-id", "cseq")):
            return
        call_id = headers["call-id"][0]
        call = self.calls.get(call_id)
        if start.startswith("SIP/2.0"):
            if call is not None and headers["cseq"][0].endswith("BYE") and not start.startswith("SIP/2.0 1"):
                self._over(call)
            return
        method = start.split(" ")[0]
        if method == "INVITE":
            if call is not None and "tag=" not in headers["to"][0]:
                call.their_repeats += 1
                if call.final:
                    self._send(call.final, peer)
            elif call is not None:  # re-INVITE or session refresh: same answer
                self._send(self._answer(headers, call, 200, self._sdp(call)), peer)
            else:
                self._ring(start, headers, body, peer, arrival_ns)
        elif method == "ACK":
            if call is not None and call.final and not call.confirmed:
                call.confirmed = True
                self._disarm(call)
        elif method == "BYE" and call is not None:
            self._send(self._answer(headers, call, 200), peer)
            self._over(call)
        elif method == "CANCEL" and call is not None:
            self._send(self._answer(headers, call, 200), peer)
            self._disarm(call)
            self._over(call)
        elif method in {"OPTIONS", "UPDATE", "INFO", "MESSAGE", "NOTIFY"}:
            self._send(self._answer(headers, call, 200), peer)
        else:
            self._send(self._answer(headers, call, 481), peer)  # RFC 3261 12.2.2

    def _ring(
        self, start: str, headers: dict[str, list[str]], body: str, peer: tuple[str, int], arrival_ns: int
    ) -> None:
        media = re.search(r"^m=audio (\d+)", body, re.M)
        address = re.search(r"^c=IN IP4 (\S+)", body, re.M)
        event = re.search(r"^a=rtpmap:(\d+) telephone-event/8000", body, re.M)
        if not self._free or media is None or address is None or event is None:
            self.refused += 1
            self._send(self._answer(headers, None, 488 if self._free else 486), peer)
            return
        contact = re.search(r"<([^>]+)>", headers.get("contact", [""])[0])
        dialled = re.search(r"sips?:([^@;>]+)@", start)
        port = self._free.pop()
        call = PhoneCall(
            media_port=port,
            invite_ns=arrival_ns,
            dialled=dialled[1] if dialled else "",
            peer=peer,
            rtp=(address[1], int(media[1]), int(event[1])),
            caller_from=headers["from"][0],
            our_to=f"{headers['to'][0]};tag=phone{port}",
            target=contact[1] if contact else f"sip:{peer[0]}:{peer[1]}",
            routes=headers.get("record-route", []),
        )
        self.calls[headers["call-id"][0]] = call
        self._send(self._answer(headers, call, 180), peer)
        loop = asyncio.get_running_loop()
        call.timer = loop.call_later(self.answer_after_s, self._pick_up, headers, call)

    def _pick_up(self, headers: dict[str, list[str]], call: PhoneCall) -> None:
        call.final = self._answer(headers, call, 200, self._sdp(call))
        self.on_media(call.media_port, *call.rtp)
        self._repeat(call, call.final, T1_S)

    def _repeat(self, call: PhoneCall, data: bytes, after_s: float, first: bool = True) -> None:
        """Send now, and again with doubling waits until answered, 10 times at most (RFC 3261 13.3.1.4)."""
        self._send(data, call.peer)
        call.our_repeats += not first
        later = min(after_s * 2, T2_S)
        if call.our_repeats < 10:
            call.timer = asyncio.get_running_loop().call_later(
                after_s, self._repeat, call, data, later, False
            )

    def _disarm(self, call: PhoneCall) -> None:
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None

    def _over(self, call: PhoneCall) -> None:
        if call.over:
            return
        call.over = True
        self._disarm(call)
        self._free.insert(0, call.media_port)  # the longest unused port is taken next
        self.on_over(call.media_port)

    def _sdp(self, call: PhoneCall) -> str:
        event = call.rtp[2]
        return (
            f"v=0\r\no=phone 1 1 IN IP4 {self.address}\r\ns=-\r\nc=IN IP4 {self.address}\r\nt=0 0\r\n"
            f"m=audio {call.media_port} RTP/AVP 0 {event}\r\na=rtpmap:0 PCMU/8000\r\n"
            f"a=rtpmap:{event} telephone-event/8000\r\na=fmtp:{event} 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
        )

    def _answer(
        self, headers: dict[str, list[str]], call: PhoneCall | None, code: int, body: str = ""
    ) -> bytes:
        reasons = {
            180: "Ringing",
            200: "OK",
            481: "Call Does Not Exist",
            486: "Busy Here",
            488: "Not Acceptable Here",
        }
        to = headers["to"][0]
        if "tag=" not in to:
            to = call.our_to if call is not None else f"{to};tag=phone"
        lines = [f"SIP/2.0 {code} {reasons[code]}", *(f"Via: {via}" for via in headers["via"])]
        lines += [f"Record-Route: {route}" for route in headers.get("record-route", []) if code in (180, 200)]
        lines += [f"From: {headers['from'][0]}", f"To: {to}", f"Call-ID: {headers['call-id'][0]}"]
        lines += [f"CSeq: {headers['cseq'][0]}", f"Contact: <sip:phone@{self.address}:{self.port}>"]
        if body:
            lines.append("Content-Type: application/sdp")
        lines.append(f"Content-Length: {len(body.encode())}")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def _bye(self, call_id: str, call: PhoneCall) -> bytes:
        branch = f"z9hG4bKbye{call.media_port}.{call.invite_ns}"
        lines = [
            f"BYE {call.target} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address}:{self.port};branch={branch}",
            "Max-Forwards: 70",
            *(f"Route: {route}" for route in call.routes),
            f"From: {call.our_to}",
            f"To: {call.caller_from}",
            f"Call-ID: {call_id}",
            "CSeq: 1 BYE",
            "Content-Length: 0",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()
