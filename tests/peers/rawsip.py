"""A raw SIP user agent over UDP that does only what it is told: for races and misbehaviour.

    async with RawSip.start() as raw, Rtp.start(raw.bind) as rtp:
        dialog = raw.dialog(("127.0.0.1", 5060), "sip:100@127.0.0.1")
        dialog.invite(sdp(raw.bind, rtp.port))
        ok = await dialog.final(5)
        dialog.ack()

There are no retransmissions and no ACK unless asked for. Requests named in `answers` are answered at once
(BYE, OPTIONS, NOTIFY, INFO with 200); take them out to stay silent. Every datagram is parsed strictly: one
that breaks RFC 3261 is kept in `refused` with the reason, so a test can assert that there are none.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from tests.peers import sipmessage
from tests.peers.sipmessage import Message, SipSyntaxError, build, build_response, new_branch
from tests.peers.waiting import Missed, own_address

Address = tuple[str, int]
Headers = Sequence[tuple[str, str]]
POLITE = {"BYE": 200, "OPTIONS": 200, "NOTIFY": 200, "INFO": 200}


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One message that arrived."""

    t: float  # monotonic seconds
    message: Message
    source: Address


@dataclass(kw_only=True)
class Burst:
    """Outcome of a burst of INVITEs."""

    sent: int = 0
    finals: Counter[int] = field(default_factory=Counter)  # final status codes
    answer_ms: list[float] = field(default_factory=list)  # INVITE to final response, each
    byes_answered: int = 0  # 200 to our BYE

    @property
    def unanswered(self) -> int:
        """INVITEs without a final response."""
        return self.sent - self.finals.total()


class RawSip(asyncio.DatagramProtocol):
    """One UDP port that speaks SIP. Use `async with RawSip.start()`."""

    def __init__(self, bind: str, port: int, name: str, answers: Mapping[str, int]) -> None:
        self.bind, self.port, self.name = bind, port, name
        self.answers = dict(answers)
        self.arrived: list[Arrival] = []
        self.refused: list[tuple[bytes, str]] = []  # datagrams that are no SIP, with the reason
        self._transport: asyncio.DatagramTransport | None = None
        self._news = asyncio.Event()
        self._taken: set[int] = set()  # positions in `arrived` handed out by `request`

    @classmethod
    def start(
        cls, bind: str = "", *, port: int = 0, name: str = "raw", answers: Mapping[str, int] = POLITE
    ) -> "RawSip":
        """A user agent on that address; it opens on `async with`."""
        return cls(bind or own_address(), port, name, answers)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=(self.bind, self.port)
        )
        self.port = int(self._transport.get_extra_info("sockname")[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close()

    @property
    def uri(self) -> str:
        """Where it is called directly."""
        return f"sip:{self.name}@{self.bind}:{self.port}"

    @property
    def via(self) -> str:
        """A Via of ours without a branch."""
        return f"SIP/2.0/UDP {self.bind}:{self.port};rport"

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Parses, keeps and, when polite, answers a message."""
        if not data.strip(b"\r\n\0"):
            return  # keep-alive (RFC 5626 3.5.1 and the habits of phones)
        try:
            message = sipmessage.parse(data)
        except SipSyntaxError as error:
            self.refused.append((data, str(error)))
            return
        self.arrived.append(Arrival(t=time.monotonic(), message=message, source=addr))
        if message.is_request and message.method in self.answers:
            self.send(build_response(message, self.answers[message.method]), addr)
        self._news.set()
        self._news = asyncio.Event()

    def error_received(self, exc: Exception) -> None:
        """ICMP port unreachable: the waits say that nothing came."""

    def send(self, raw: bytes, to: Address) -> None:
        """Any bytes."""
        assert self._transport is not None
        self._transport.sendto(raw, to)

    async def arrival(
        self, check: Callable[[Message], bool], within_s: float, what: str, *, fresh: bool = False
    ) -> Arrival:
        """The first matching message, past or to come; `fresh`: never handed out before. Raises Missed."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            news = self._news
            for at, arrival in enumerate(self.arrived):
                if not (fresh and at in self._taken) and check(arrival.message):
                    if fresh:
                        self._taken.add(at)
                    return arrival
            try:
                async with asyncio.timeout_at(deadline):
                    await news.wait()
            except TimeoutError:
                seen = [f"{a.message.status or ''} {a.message.method}".strip() for a in self.arrived[-10:]]
                raise Missed(
                    f"{what}: not within {within_s} s; {self.uri} saw {seen}, refused {len(self.refused)}"
                ) from None

    async def request(self, method: str, within_s: float) -> Arrival:
        """The next request of that method that was not handed out yet."""
        return await self.arrival(
            lambda m: m.is_request and m.method == method, within_s, f"a {method}", fresh=True
        )

    async def incoming(self, within_s: float) -> "Dialog":
        """The next INVITE outside of a dialog, as the dialog it may become."""
        found = await self.arrival(
            lambda m: m.is_request and m.method == "INVITE" and not m.to_tag,
            within_s,
            "an INVITE",
            fresh=True,
        )
        return Dialog.called(self, found)

    def dialog(
        self, server: Address, target: str, *, from_user: str = "", from_domain: str = "", display: str = ""
    ) -> "Dialog":
        """A dialog we are about to begin with an INVITE to `target`, sent to `server`."""
        domain = from_domain or f"{self.bind}:{self.port}"
        shown = f'"{display}" ' if display else ""
        return Dialog(
            self,
            server=server,
            target=target,
            remote=f"<{target}>",
            local=f"{shown}<sip:{from_user or self.name}@{domain}>",
            call_id=f"{secrets.token_hex(8)}@{self.bind}",
        )

    async def options(self, server: Address, target: str, within_s: float = 5) -> Message:
        """OPTIONS outside of a dialog (RFC 3261 11) and its final response."""
        dialog = self.dialog(server, target)
        dialog.request("OPTIONS", headers=[("Accept", "application/sdp")])
        return await dialog.final(within_s, method="OPTIONS")

    async def register(
        self,
        server: Address,
        user: str,
        password: str,
        *,
        domain: str,
        expires_s: int = 120,
        contact: str = "",
        auth_user: str = "",
        within_s: float = 5,
    ) -> Message:
        """REGISTER, answering one challenge; the final response, whatever it is."""
        dialog = self.dialog(server, f"sip:{domain}", from_user=user, from_domain=domain)
        dialog.remote = f"<sip:{user}@{domain}>"
        headers = [
            ("Contact", contact or f"<sip:{user}@{self.bind}:{self.port}>"),
            ("Expires", str(expires_s)),
        ]
        dialog.request("REGISTER", headers=headers, with_contact=False)
        response = await dialog.final(within_s, method="REGISTER")
        if response.status in (401, 407):
            answer = dialog.answer_to(response, auth_user or user, password, f"sip:{domain}")
            dialog.request("REGISTER", headers=[*headers, answer], with_contact=False)
            response = await dialog.final(within_s, method="REGISTER")
        return response

    async def burst(
        self,
        server: Address,
        target: str,
        *,
        per_s: float,
        for_s: float,
        body: str = "",
        ack: bool = True,
        bye: bool = True,
        linger_s: float = 5,
    ) -> Burst:
        """`per_s` INVITEs a second for `for_s` seconds, each one a call of its own.

        Answered ones are ACKed and ended. Afterwards up to `linger_s` are given to late answers. Without
        `ack` nothing is acknowledged.
        """
        loop, outcome = asyncio.get_running_loop(), Burst()
        dialogs: dict[str, tuple[Dialog, float]] = {}
        done: set[str] = set()
        read, began = len(self.arrived), loop.time()
        total = int(per_s * for_s)
        while True:
            while outcome.sent < total and loop.time() - began >= outcome.sent / per_s:
                dialog = self.dialog(server, target)
                dialog.invite(body or None)
                dialogs[dialog.call_id] = (dialog, time.monotonic())
                outcome.sent += 1
            for arrival in self.arrived[read:]:
                self._burst_answer(arrival, dialogs, done, outcome, ack=ack, bye=bye)
            read = len(self.arrived)
            settled = outcome.unanswered == 0 and outcome.byes_answered == (
                outcome.finals[200] if ack and bye else 0
            )
            over = loop.time() - began > for_s
            if (over and settled) or loop.time() - began > for_s + linger_s:
                return outcome
            await asyncio.sleep(min(0.005, 0.5 / per_s))

    def _burst_answer(
        self, arrival: Arrival, dialogs: "Mapping[str, tuple[Dialog, float]]", done: set[str], outcome: Burst,
        *, ack: bool, bye: bool,
    ) -> None:  # fmt: skip
        message = arrival.message
        if message.call_id not in dialogs or message.status < 200:
            return
        dialog, began = dialogs[message.call_id]
        if message.method == "BYE":
            outcome.byes_answered += 1
        elif message.method == "INVITE":
            first = message.call_id not in done
            if first:
                done.add(message.call_id)
                outcome.finals[message.status] += 1
                outcome.answer_ms.append((arrival.t - began) * 1000)
            dialog.learn(message)
            if ack:
                dialog.ack(response=message)
            if ack and bye and first and message.status < 300:
                dialog.bye()


class Dialog:
    """One call leg, made by hand. Each method sends exactly one message."""

    def __init__(
        self, ua: RawSip, *, server: Address, target: str, remote: str, local: str, call_id: str
    ) -> None:
        self.ua, self.server = ua, server
        self.target = target  # Request-URI: theirs at first, then their Contact
        self.remote, self.local = remote, local  # To and From as we send them, without tags
        self.call_id = call_id
        self.local_tag, self.remote_tag = secrets.token_hex(5), ""
        self.cseq = 0
        self.routes: list[str] = []
        self.offered: Message | None = None  # the INVITE, when they called us
        self.invite_headers: Headers = ()
        self._invite_branch = self._invite_target = ""
        self._invite_cseq = 0
        self._last = b""

    @classmethod
    def called(cls, ua: RawSip, arrival: Arrival) -> "Dialog":
        """The dialog of an INVITE we received."""
        invite = arrival.message
        made = cls(
            ua,
            server=arrival.source,
            target=invite.contact,
            remote=invite.get("from"),
            local=invite.get("to"),
            call_id=invite.call_id,
        )
        made.remote_tag, made.routes, made.offered = invite.from_tag, invite.all("record-route"), invite
        return made

    # -- their side

    async def response(
        self, within_s: float, *, method: str = "INVITE", check: Callable[[Message], bool] = lambda _: True
    ) -> Message:
        """The first response to the last request of that method that fits. Raises Missed."""
        cseq = self._invite_cseq if method == "INVITE" else self.cseq
        found = await self.ua.arrival(
            lambda m: (
                m.status > 0
                and m.call_id == self.call_id
                and m.method == method
                and m.cseq == cseq
                and check(m)
            ),
            within_s,
            f"a response to {method}",
        )
        self.learn(found.message)
        return found.message

    async def final(self, within_s: float, *, method: str = "INVITE") -> Message:
        """The final response to the last request of that method."""
        return await self.response(within_s, method=method, check=lambda m: m.status >= 200)

    async def provisional(self, within_s: float, status: int) -> Message:
        """That 1xx to the INVITE."""
        return await self.response(within_s, check=lambda m: m.status == status)

    async def request_in(self, method: str, within_s: float) -> Message:
        """A request the far end sent in this dialog."""
        found = await self.ua.arrival(
            lambda m: m.is_request and m.call_id == self.call_id and m.method == method,
            within_s, f"a {method} in the dialog", fresh=True,
        )  # fmt: skip
        return found.message

    def responses(self, method: str = "INVITE") -> list[Message]:
        """All responses of this Call-ID to that method so far, repetitions included."""
        return [
            a.message
            for a in self.ua.arrived
            if a.message.status and a.message.call_id == self.call_id and a.message.method == method
        ]

    def learn(self, response: Message) -> None:
        """Tag, remote target and route set of a response (RFC 3261 12.1.2)."""
        if response.to_tag and response.method == "INVITE":
            self.remote_tag = response.to_tag
            if response.status < 300 and response.contact:
                self.target = response.contact
                self.routes = list(reversed(response.all("record-route")))

    # -- our side

    def request(
        self,
        method: str,
        *,
        body: str = "",
        headers: Headers = (),
        branch: str = "",
        cseq: int = 0,
        with_contact: bool = True,
        content_type: str = "application/sdp",
    ) -> None:
        """Any request in, or at the start of, the dialog."""
        if not cseq:
            self.cseq += 1
        made = self._headers(method, cseq or self.cseq, branch or new_branch(), self.remote_tag)
        if with_contact:
            made.append(("Contact", f"<{self.ua.uri}>"))
        if body:
            made.append(("Content-Type", content_type))
        self._send(build(f"{method} {self.target} SIP/2.0", [*made, *headers], body))

    def _headers(self, method: str, cseq: int, branch: str, remote_tag: str) -> list[tuple[str, str]]:
        local, remote = (self.local, self.remote)
        if ";tag=" not in local:
            local += f";tag={self.local_tag}"
        if remote_tag and ";tag=" not in remote:
            remote += f";tag={remote_tag}"
        return [
            ("Via", f"{self.ua.via};branch={branch}"),
            *(("Route", route) for route in self.routes),
            ("Max-Forwards", "70"),
            ("From", local),
            ("To", remote),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
        ]

    def _send(self, raw: bytes) -> None:
        self._last = raw
        self.ua.send(raw, self.server)

    def again(self) -> None:
        """The last message once more, byte by byte: a retransmission."""
        self.ua.send(self._last, self.server)

    def invite(self, body: str | None = None, *, headers: Headers = ()) -> None:
        """INVITE, or a re-INVITE inside the dialog; no body is a late offer (RFC 3261 13.2.1)."""
        self._invite_branch, self._invite_target = new_branch(), self.target
        self.invite_headers = headers
        self.request("INVITE", body=body or "", headers=headers, branch=self._invite_branch)
        self._invite_cseq = self.cseq

    async def invite_as(
        self, user: str, password: str, body: str | None = None, *, headers: Headers = (), within_s: float = 5
    ) -> None:
        """INVITE, ACK of its challenge, INVITE with credentials. Raises Missed when nothing challenges it."""
        self.invite(body, headers=headers)
        challenge = await self.final(within_s)
        self.ack(response=challenge)
        if challenge.status not in (401, 407):
            raise Missed(f"The INVITE was answered {challenge.status} {challenge.reason}, not challenged")
        self.remote_tag = ""  # a new request outside of a dialog
        answer = self.answer_to(challenge, user, password, self.target, method="INVITE")
        self.invite(body, headers=[*headers, answer])

    def answer_to(
        self, challenge: Message, user: str, password: str, uri: str, *, method: str = "REGISTER"
    ) -> tuple[str, str]:
        """The Authorization or Proxy-Authorization header for a 401 or 407."""
        proxy = challenge.status == 407
        value = challenge.get("proxy-authenticate" if proxy else "www-authenticate")
        answer = sipmessage.digest_answer(
            sipmessage.parse_challenge(value), method=method, uri=uri, user=user, password=password
        )
        return ("Proxy-Authorization" if proxy else "Authorization", answer)

    def ack(self, body: str = "", *, response: Message | None = None) -> None:
        """ACK of the last final response to INVITE (or of `response`): RFC 3261 13.2.2.4 and 17.1.1.3."""
        finals = [m for m in self.responses() if m.status >= 200 and m.cseq == self._invite_cseq]
        answered = response or finals[-1]
        if answered.status < 300:
            self.learn(answered)
            self.request("ACK", body=body, cseq=self._invite_cseq, with_contact=False)
            return
        made = self._headers("ACK", self._invite_cseq, self._invite_branch, answered.to_tag)
        self._send(build(f"ACK {self._invite_target} SIP/2.0", made))

    def cancel(self) -> None:
        """CANCEL of the INVITE (RFC 3261 9.1): its branch, its CSeq number, no tag."""
        made = self._headers("CANCEL", self._invite_cseq, self._invite_branch, "")
        self._send(build(f"CANCEL {self._invite_target} SIP/2.0", made))

    def bye(self) -> None:
        """BYE, whatever state the dialog is in."""
        self.request("BYE", with_contact=False)

    def info_key(self, key: str, *, ms: int = 160) -> None:
        """A key by SIP INFO (application/dtmf-relay)."""
        self.request("INFO", body=f"Signal={key}\r\nDuration={ms}\r\n", content_type="application/dtmf-relay")

    def refer(self, target: str) -> None:
        """Blind transfer (RFC 3515)."""
        self.request("REFER", headers=[("Refer-To", f"<{target}>"), ("Referred-By", self.local)])

    def respond(
        self,
        status: int,
        body: str = "",
        *,
        headers: Headers = (),
        request: Message | None = None,
        reason: str = "",
    ) -> None:
        """A response to their INVITE, or to another request of theirs."""
        asked = request or self.offered
        if asked is None:
            raise ValueError("There is no request of theirs to respond to; pass `request`.")
        more = [*headers]
        if status > 100 and asked.method == "INVITE":
            more.append(("Contact", f"<{self.ua.uri}>"))
        if body:
            more.append(("Content-Type", "application/sdp"))
        tag = self.local_tag if status > 100 else ""
        raw = build_response(asked, status, reason=reason, to_tag=tag, headers=more, body=body)
        self._last = raw
        self.ua.send(raw, self.server)
