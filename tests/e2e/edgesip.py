"""A SIP agent of raw sockets for tests of the edge: it can say anything, from any loopback address.

Not a phone: no timers, no retransmissions (loopback loses nothing), no transactions. One `Agent` is one UDP
socket or one TCP, TLS or WebSocket connection to the edge.
"""

import asyncio
import base64
import hashlib
import itertools
import os
import re
import secrets
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

Address = tuple[str, int]
_numbers = itertools.count(1)


@dataclass
class Message:
    """One SIP request or reply."""

    start: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Strict enough for what Kamailio sends."""
        head, _, body = raw.decode(errors="replace").partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        headers = [(n.strip(), v.strip()) for n, _, v in (line.partition(":") for line in lines)]
        return cls(start, headers, body)

    def raw(self) -> bytes:
        """The bytes on the wire, Content-Length appended."""
        lines = [self.start, *(f"{n}: {v}" for n, v in self.headers)]
        body = self.body.encode()
        return ("\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n").encode() + body

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def get(self, name: str) -> str:
        """The first value of a header, or an empty string."""
        return next(iter(self.all(name)), "")

    @property
    def method(self) -> str:
        """Request method, empty for a reply."""
        return "" if self.start.startswith("SIP/2.0") else self.start.split(" ", 1)[0]

    @property
    def uri(self) -> str:
        """Request-URI."""
        return self.start.split(" ")[1]

    @property
    def code(self) -> int:
        """Status code, 0 for a request."""
        return int(self.start.split(" ")[1]) if self.start.startswith("SIP/2.0") else 0

    @property
    def cseq(self) -> str:
        """Method in CSeq."""
        return self.get("CSeq").split()[-1]

    @property
    def media_port(self) -> int:
        """Port of the first m=audio line."""
        found = re.search(r"^m=audio (\d+)", self.body, re.M)
        assert found, f"no audio in {self.start}: {self.body}"
        return int(found[1])

    @property
    def media_address(self) -> Address:
        """Address and port of the audio."""
        found = re.search(r"^c=IN IP4 (\S+)", self.body, re.M)
        assert found
        return found[1], self.media_port


def sdp(host: str, port: int, *, profile: str = "RTP/AVP", formats: str = "0 101", more: str = "") -> str:
    """An audio offer or answer."""
    return (
        f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} {profile} {formats}\r\n"
        "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=sendrecv\r\n" + more
    )


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, agent: "Agent") -> None:
        self._agent = agent

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._agent.received(data)


class Agent:
    """One socket that speaks SIP. Requests that nobody waits for go to `on_request`, if set."""

    def __init__(self, host: str, port: int, edge: Address, transport: str) -> None:
        self.host, self.port, self.edge, self.transport = host, port, edge, transport
        self.inbox: list[Message] = []
        self.on_request: Callable[[Message], None] | None = None
        self._arrived = asyncio.Event()
        self._udp: asyncio.DatagramTransport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self.closed = False

    @classmethod
    async def udp(cls, host: str, edge: Address, port: int = 0) -> Self:
        """Bound to host:port."""
        loop = asyncio.get_running_loop()
        agent = cls(host, port, edge, "UDP")
        agent._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(agent), local_addr=(host, port)
        )
        agent.port = agent._udp.get_extra_info("sockname")[1]
        return agent

    @classmethod
    async def tcp(cls, host: str, edge: Address, *, tls: bool = False) -> Self:
        """A connection from host."""
        return await cls._connected(host, edge, "TLS" if tls else "TCP", tls)

    @classmethod
    async def _connected(cls, host: str, edge: Address, name: str, tls: bool) -> Self:
        context = None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(*edge, local_addr=(host, 0), ssl=context)
        agent = cls(host, writer.get_extra_info("sockname")[1], edge, name)
        agent._writer = writer
        agent._reading = asyncio.create_task(agent._read(reader))
        return agent

    @classmethod
    async def websocket(cls, host: str, edge: Address, *, tls: bool = False) -> Self:
        """A WebSocket with the sip subprotocol (RFC 7118)."""
        agent = await cls._connected(host, edge, "WSS" if tls else "WS", tls)
        assert agent._reading
        assert agent._writer
        agent._reading.cancel()
        await asyncio.gather(agent._reading, return_exceptions=True)
        reader: asyncio.StreamReader = agent._writer.transport.get_protocol()._stream_reader  # type: ignore[attr-defined]
        key = base64.b64encode(os.urandom(16)).decode()
        agent._writer.write(
            (
                f"GET / HTTP/1.1\r\nHost: {edge[0]}:{edge[1]}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Protocol: sip\r\n\r\n"
            ).encode()
        )
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        wanted = base64.b64encode(
            hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        )
        assert wanted in answer, answer
        assert b"Sec-WebSocket-Protocol: sip" in answer, answer
        agent._reading = asyncio.create_task(agent._read_frames(reader))
        return agent

    async def close(self) -> None:
        """Close the socket."""
        if self._udp:
            self._udp.close()
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._writer:
            self._writer.close()
            await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                self.closed = True
                self._arrived.set()
                return
            if not head.strip():
                continue
            found = re.search(rb"(?:Content-Length|^l)\s*:\s*(\d+)", head, re.I | re.M)
            self.received(head.lstrip() + await reader.readexactly(int(found[1]) if found else 0))

    async def _read_frames(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                first, second = await reader.readexactly(2)
                length = second & 0x7F
                if length == 126:
                    length = int.from_bytes(await reader.readexactly(2), "big")
                elif length == 127:
                    length = int.from_bytes(await reader.readexactly(8), "big")
                payload = await reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.closed = True
                self._arrived.set()
                return
            if first & 0x0F == 9:
                self._frame(payload, 10)
            elif first & 0x0F in (1, 2) and payload.strip():
                self.received(payload)

    def _frame(self, payload: bytes, opcode: int) -> None:
        assert self._writer
        mask = os.urandom(4)
        length = len(payload)
        head = bytes([0x80 | opcode])
        if length < 126:
            head += bytes([0x80 | length])
        else:
            head += bytes([0x80 | 126]) + length.to_bytes(2, "big")
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
        self._writer.write(head + mask + masked)

    def received(self, raw: bytes) -> None:
        """A message came in."""
        if not raw.strip():
            return
        message = Message.parse(raw)
        if message.method and self.on_request:
            self.on_request(message)
        else:
            self.inbox.append(message)
            self._arrived.set()

    def send(self, message: Message | bytes) -> None:
        """Put it on the wire to the edge."""
        raw = message if isinstance(message, bytes) else message.raw()
        if self._udp:
            self._udp.sendto(raw, self.edge)
        elif self.transport.startswith("WS"):
            self._frame(raw, 1)
        else:
            assert self._writer
            self._writer.write(raw)

    async def wait(
        self, wanted: Callable[[Message], bool], within_s: float = 5.0, what: str = "message"
    ) -> Message:
        """The first message in the inbox that fits, taken out of it. Raises AssertionError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while True:
            for message in self.inbox:
                if wanted(message):
                    self.inbox.remove(message)
                    return message
            self._arrived.clear()
            left = deadline - loop.time()
            try:
                await asyncio.wait_for(self._arrived.wait(), max(left, 0.001))
            except TimeoutError:
                raise AssertionError(
                    f"{self.host} got no {what} within {within_s} s; it has {[m.start for m in self.inbox]}"
                ) from None

    async def request(self, method: str, within_s: float = 5.0) -> Message:
        """The next request of that method."""
        return await self.wait(lambda m: m.method == method, within_s, method)

    async def final(self, call_id: str, within_s: float = 5.0) -> Message:
        """The next final reply of that Call-ID."""
        return await self.wait(
            lambda m: m.code >= 200 and m.get("Call-ID") == call_id, within_s, "final reply"
        )

    async def nothing(self, within_s: float = 0.7) -> None:
        """Nothing may arrive."""
        await asyncio.sleep(within_s)
        assert not self.inbox, [m.start for m in self.inbox]

    @property
    def contact(self) -> str:
        """Contact URI."""
        transport = "ws" if self.transport.startswith("WS") else self.transport.lower()
        parameter = "" if transport == "udp" else f";transport={transport}"
        return f"sip:agent@{self.host}:{self.port}{parameter}"

    def via(self) -> str:
        """A Via value with a new branch."""
        branch = f"z9hG4bK{secrets.token_hex(8)}"
        return f"SIP/2.0/{self.transport} {self.host}:{self.port};branch={branch};rport"

    def own_tag(self, call_id: str) -> str:
        """The To-tag this agent gives as callee."""
        return "callee" + hashlib.sha1((call_id + self.contact).encode()).hexdigest()[:8]

    def new(
        self,
        method: str,
        uri: str,
        *,
        user: str = "agent",
        to: str = "",
        body: str = "",
        call_id: str = "",
        cseq: int = 1,
        from_tag: str = "",
        headers: Sequence[tuple[str, str]] = (),
        contact: str = "",
    ) -> Message:
        """A request outside a dialog."""
        lines = [
            ("Via", self.via()),
            ("Max-Forwards", "70"),
            ("From", f"<sip:{user}@careline>;tag={from_tag or secrets.token_hex(5)}"),
            ("To", to or f"<{uri}>"),
            ("Call-ID", call_id or f"{next(_numbers)}-{secrets.token_hex(6)}"),
            ("CSeq", f"{cseq} {method}"),
            ("Contact", contact or f"<{self.contact}>"),
            *headers,
        ]
        if body:
            lines.append(("Content-Type", "application/sdp"))
        return Message(f"{method} {uri} SIP/2.0", lines, body)

    def reply(
        self,
        request: Message,
        code: int,
        reason: str = "Said",
        *,
        body: str = "",
        tag: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ) -> Message:
        """Send a reply to a request and return it."""
        lines = [("Via", v) for v in request.all("Via")]
        lines += [("Record-Route", v) for v in request.all("Record-Route")]
        to = request.get("To")
        if code > 100 and ";tag=" not in to:
            to += f";tag={tag or self.own_tag(request.get('Call-ID'))}"
        lines += [("From", request.get("From")), ("To", to)]
        lines += [("Call-ID", request.get("Call-ID")), ("CSeq", request.get("CSeq"))]
        lines += [("Contact", f"<{self.contact}>"), *headers]
        if body:
            lines.append(("Content-Type", "application/sdp"))
        message = Message(f"SIP/2.0 {code} {reason}", lines, body)
        self.send(message)
        return message

    def ack(self, request: Message, final: Message, *, body: str = "") -> None:
        """ACK a final reply of an INVITE."""
        if final.code < 300:
            self.send(
                Dialog.of_caller(self, request, final).build(
                    "ACK", body=body, cseq=request.get("CSeq").split()[0]
                )
            )
            return
        lines = [("Via", request.get("Via")), ("Max-Forwards", "70")]
        lines += [("From", request.get("From")), ("To", final.get("To"))]
        lines += [("Call-ID", request.get("Call-ID")), ("CSeq", request.get("CSeq").split()[0] + " ACK")]
        self.send(Message(f"ACK {request.uri} SIP/2.0", lines))

    async def register(
        self,
        username: str,
        password: str,
        *,
        expires_s: int = 300,
        contact: str = "",
        algorithm: str = "md5",
        within_s: float = 5.0,
    ) -> Message:
        """REGISTER, with the challenge answered; the last reply."""
        to = f"<sip:{username}@careline>"
        first = self.new("REGISTER", "sip:careline", user=username, to=to, contact=contact)
        first.headers.append(("Expires", str(expires_s)))
        return await self.authenticated(first, username, password, algorithm, within_s)

    async def authenticated(
        self, first: Message, username: str, password: str, algorithm: str = "md5", within_s: float = 5.0
    ) -> Message:
        """Send a request, answer its challenge, give the final reply. The ACK of 401/407 is sent too."""
        self.send(first)
        challenge = await self.final(first.get("Call-ID"), within_s)
        if challenge.code not in (401, 407):
            return challenge
        if first.method == "INVITE":
            self.ack(first, challenge)
        second = self.with_credentials(first, challenge, username, password, algorithm)
        self.send(second)
        return await self.final(first.get("Call-ID"), within_s)

    def with_credentials(
        self, first: Message, challenge: Message, username: str, password: str, algorithm: str = "md5"
    ) -> Message:
        """The request again, with the digest of RFC 2617 and the next CSeq."""
        header = challenge.get("WWW-Authenticate") or challenge.get("Proxy-Authenticate")
        found = dict(re.findall(r'(\w+)="?([^",]+)"?', header))
        h = hashlib.md5 if algorithm == "md5" else hashlib.sha256
        ha1 = h(f"{username}:{found['realm']}:{password}".encode()).hexdigest()
        ha2 = h(f"{first.method}:{first.uri}".encode()).hexdigest()
        cnonce = secrets.token_hex(4)
        response = h(f"{ha1}:{found['nonce']}:00000001:{cnonce}:auth:{ha2}".encode()).hexdigest()
        said = (
            f'Digest username="{username}", realm="{found["realm"]}", nonce="{found["nonce"]}", '
            f'uri="{first.uri}", '
            f'qop=auth, nc=00000001, cnonce="{cnonce}", response="{response}"'
            + ("" if algorithm == "md5" else ", algorithm=SHA-256")
        )
        name = "Authorization" if challenge.code == 401 else "Proxy-Authorization"
        number, method = first.get("CSeq").split()
        replaced = {
            "CSeq": f"{int(number) + 1} {method}",
            "Via": re.sub(r"branch=[^;]+", f"branch=z9hG4bK{secrets.token_hex(8)}", first.get("Via")),
        }
        lines = [(n, replaced.get(n, v)) for n, v in first.headers]
        return Message(first.start, [*lines, (name, said)], first.body)


@dataclass
class Dialog:
    """What a side of a confirmed dialog needs for its next request (RFC 3261 12.2.1.1)."""

    agent: Agent
    call_id: str
    local: str  # From value with tag
    remote: str  # To value with tag
    target: str
    routes: list[str]
    cseq: int

    @classmethod
    def of_caller(cls, agent: Agent, request: Message, final: Message) -> "Dialog":
        """From the INVITE we sent and its 2xx."""
        return cls(
            agent,
            request.get("Call-ID"),
            request.get("From"),
            final.get("To"),
            _uri(final.get("Contact")),
            list(reversed(_routes(final))),
            int(request.get("CSeq").split()[0]),
        )

    @classmethod
    def of_callee(cls, agent: Agent, request: Message, reply: Message) -> "Dialog":
        """From the INVITE we got and our 2xx."""
        return cls(
            agent,
            request.get("Call-ID"),
            reply.get("To"),
            request.get("From"),
            _uri(request.get("Contact")),
            _routes(request),
            100,
        )

    def build(self, method: str, *, body: str = "", cseq: str = "") -> Message:
        """The next request."""
        if not cseq:
            self.cseq += 1
            cseq = str(self.cseq)
        agent = self.agent
        lines = [
            ("Via", agent.via()),
            ("Max-Forwards", "70"),
            *(("Route", route) for route in self.routes),
            ("From", self.local),
            ("To", self.remote),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
            ("Contact", f"<{agent.contact}>"),
        ]
        if body:
            lines.append(("Content-Type", "application/sdp"))
        return Message(f"{method} {self.target} SIP/2.0", lines, body)

    def send(self, method: str, *, body: str = "", cseq: str = "") -> Message:
        """Send the next request and return it."""
        message = self.build(method, body=body, cseq=cseq)
        self.agent.send(message)
        return message


def _routes(message: Message) -> list[str]:
    return [part.strip() for value in message.all("Record-Route") for part in value.split(",")]


def _uri(contact: str) -> str:
    found = re.search(r"<([^>]+)>", contact)
    return found[1] if found else contact.split(";")[0]


class Rtp(asyncio.DatagramProtocol):
    """A media socket: sends G.711 packets, counts what comes."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.sources: set[Address] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._sequence = 0

    @classmethod
    async def open(cls, host: str) -> Self:
        """Bound to any port of host."""
        loop = asyncio.get_running_loop()
        transport, rtp = await loop.create_datagram_endpoint(cls, local_addr=(host, 0))
        rtp._transport = transport
        return rtp

    @property
    def port(self) -> int:
        """Own port."""
        assert self._transport
        return int(self._transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.got.append(data)
        self.sources.add(addr)

    def send(self, to: Address, payload: bytes = b"\xff" * 160, kind: int = 0) -> None:
        """One packet."""
        assert self._transport
        self._sequence += 1
        head = bytes([0x80, kind]) + self._sequence.to_bytes(2, "big")
        head += (self._sequence * 160).to_bytes(4, "big") + b"CARE"
        self._transport.sendto(head + payload, to)

    def close(self) -> None:
        """Close the socket."""
        assert self._transport
        self._transport.close()


class Worker(Agent):
    """A stand-in for a worker: answers OPTIONS with `options_code`; INVITEs wait in the inbox."""

    options_code = 200
    invite_code = 0  # other than 0: every INVITE is answered with it at once
    invites: int = 0

    @classmethod
    async def listening(cls, host: str, port: int, edge: Address) -> Self:
        """A worker on host:port."""
        worker = await cls.udp(host, edge, port)
        worker.on_request = worker._auto
        return worker

    def _auto(self, message: Message) -> None:
        if message.method == "OPTIONS":
            self.reply(message, self.options_code)
            return
        if message.method == "INVITE" and ";tag=" not in message.get("To"):
            self.invites += 1
            if self.invite_code:
                self.reply(message, self.invite_code)
                return
            self.reply(message, 100)
        self.inbox.append(message)
        self._arrived.set()
