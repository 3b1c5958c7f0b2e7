"""A real SIP phone as a program: pjsua2, no sound device, driven by JSON lines.

`python -m tests.peers.phone '{"folder": "/tmp/x", "bind": "127.0.0.21"}'` reads one command a line on stdin,
`{"do": "dial", "id": 1, "uri": "sip:..."}`, answers each with `{"re": 1, "ok": true, ...}`, and reports
`{"event": "...", "t": seconds since the epoch, "call": number, ...}`. When stdin closes it hangs up and ends.

One thread owns every pjsua2 object and polls (`threadCnt=0`). A call object lives in `Phone.calls` until its
dialog is over, and is freed later outside of pjsua2's own callbacks; freeing it earlier crashes the process.
What a call receives is written to a WAV file from the first media on, holds and gaps included as silence.
The asyncio side of it is `tests.peers.phones`.
"""

import contextlib
import heapq
import itertools
import json
import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.peers import tones
from tests.peers.phone_call import REPORTS, Call, explain, headers_of, pj, say, tone_voice, write

POLL_MS = 10
SRTP = {
    "off": "PJMEDIA_SRTP_DISABLED",
    "optional": "PJMEDIA_SRTP_OPTIONAL",
    "mandatory": "PJMEDIA_SRTP_MANDATORY",
}
TRANSPORTS = {"udp": "PJSIP_TRANSPORT_UDP", "tcp": "PJSIP_TRANSPORT_TCP", "tls": "PJSIP_TRANSPORT_TLS"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the phone is set up at start; the JSON object on the command line has the same keys."""

    folder: str  # recordings go here, as <name>-<call number>.wav
    name: str = "phone"  # for files and the local SIP user
    user: str = ""  # local SIP user while not registered; the name when empty
    display: str = ""  # display name in From
    bind: str = "127.0.0.1"  # local address of signalling and media
    port: int = 0  # UDP and TCP port; 0: any free one
    tls_port: int = 0  # TLS port; 0: any free one
    rtp_port: int = 40000  # first port tried for media
    transports: list[str] = field(default_factory=lambda: ["udp", "tcp"])  # of udp, tcp, tls
    srtp: str = "off"  # off, optional, mandatory (SDES)
    codecs: list[str] = field(
        default_factory=lambda: ["PCMU/8000", "PCMA/8000"]
    )  # offered in this order, no others
    clock_rate_hz: int = 8000  # of the bridge and of recordings
    max_calls: int = 32  # at once
    prack: bool = False  # require reliable provisional responses (RFC 3262)
    timer: str = "optional"  # session timers (RFC 4028): inactive, optional, always
    timer_s: int = 1800  # Session-Expires
    cert: str = ""  # certificate of the TLS listener
    key: str = ""  # its private key
    early_tone_hz: float = 0  # played to a caller after 183
    pj_log_level: int = 1  # pjsua2's own log on stderr


class Account(pj.Account):  # type: ignore[misc]  # pjsua2 is untyped here
    """The phone's one account; it also takes calls to any user while unregistered."""

    phone: "Phone"

    def onIncomingCall(self, prm: Any) -> None:
        try:
            self.phone.rings(prm.callId, prm.rdata.wholeMsg, prm.rdata.srcAddress)
        except Exception as error:  # reported: pjsua2 would print and forget it
            say("fault", error=explain(error))

    def onRegState(self, prm: Any) -> None:
        active = prm.code // 100 == 2 and prm.expiration > 0
        fields = {"code": prm.code, "reason": prm.reason, "expires_s": prm.expiration}
        say("registered" if active else "unregistered", **fields)

    def onInstantMessage(self, prm: Any) -> None:
        say("message", from_uri=prm.fromUri, content_type=prm.contentType, body=prm.msgBody)

    def onMwiInfo(self, prm: Any) -> None:
        say("mwi", message=prm.rdata.wholeMsg.split("\r\n\r\n", 1)[-1])


class Phone:
    """The program: endpoint, account, calls, commands."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = Path(options.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.calls: dict[int, Call] = {}
        self.numbers = itertools.count(1)
        self.policy: dict[str, Any] = {"kind": "manual"}
        self.refuse_refer = 0
        self.realm_server = ""
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.stopping = False
        self.endpoint = pj.Endpoint()
        self.account = Account()
        self.account.phone = self
        self.hush: Any = None
        self.graveyard: list[Any] = []

    def start(self) -> None:
        """Opens transports and the local account; says `ready`."""
        o, config = self.options, pj.EpConfig()
        config.uaConfig.threadCnt, config.uaConfig.mainThreadOnly = 0, True
        config.uaConfig.maxCalls = o.max_calls
        config.uaConfig.userAgent = f"careline-test-phone/{o.name}"
        config.medConfig.clockRate = config.medConfig.sndClockRate = o.clock_rate_hz
        config.medConfig.ecTailLen, config.medConfig.noVad = 0, True
        config.medConfig.maxMediaPorts = 5 * o.max_calls + 8
        config.logConfig.level = config.logConfig.consoleLevel = 0
        if o.pj_log_level > 1:
            config.logConfig.level, config.logConfig.filename = (
                o.pj_log_level,
                str(self.folder / f"{o.name}.pj.log"),
            )
        self.endpoint.libCreate()
        self.endpoint.libInit(config)
        ports = {kind: self._listen(kind) for kind in o.transports}
        self.endpoint.libStart()
        self.endpoint.audDevManager().setNullDev()
        for codec in self.endpoint.codecEnum2():
            self.endpoint.codecSetPriority(codec.codecId, 0)
        for place, codec_id in enumerate(o.codecs):
            self.endpoint.codecSetPriority(codec_id, 250 - place)
        self.port = ports.get("udp") or ports.get("tcp") or ports.get("tls") or 0
        self.account.create(self._account_config())
        self.hush = pj.ToneGenerator()
        self.hush.createToneGenerator(o.clock_rate_hz)
        say("ready", pid=os.getpid(), bind=o.bind, ports=ports)

    def _listen(self, kind: str) -> int:
        o, config = self.options, pj.TransportConfig()
        config.boundAddress = config.publicAddress = o.bind
        config.port = o.tls_port if kind == "tls" else o.port
        if kind == "tls":
            config.tlsConfig.verifyServer = False
            config.tlsConfig.certFile, config.tlsConfig.privKeyFile = o.cert, o.key
        made = self.endpoint.transportCreate(getattr(pj, TRANSPORTS[kind]), config)
        name = str(self.endpoint.transportGetInfo(made).localName)
        return int(name.rpartition(":")[2])

    def _account_config(self) -> Any:
        o, config = self.options, pj.AccountConfig()
        display = f'"{o.display}" ' if o.display else ""
        config.idUri = f"{display}<sip:{o.user or o.name}@{o.bind}:{self.port}>"
        media = config.mediaConfig
        media.transportConfig.boundAddress = media.transportConfig.publicAddress = o.bind
        media.transportConfig.port, media.transportConfig.portRange = o.rtp_port, 2000
        media.srtpUse, media.srtpSecureSignaling = getattr(pj, SRTP[o.srtp]), 0
        config.natConfig.contactRewriteUse = config.natConfig.viaRewriteUse = 0
        config.natConfig.sdpNatRewriteUse = 0
        config.callConfig.prackUse = pj.PJSUA_100REL_MANDATORY if o.prack else pj.PJSUA_100REL_NOT_USED
        config.callConfig.timerUse = getattr(pj, f"PJSUA_SIP_TIMER_{o.timer.upper()}")
        config.callConfig.timerSessExpiresSec, config.callConfig.timerMinSESec = o.timer_s, 90
        config.mwiConfig.enabled = False
        return config

    # -- calls

    def recording_of(self, number: int) -> Path:
        """Where that call is recorded."""
        return self.folder / f"{self.options.name}-{number}.wav"

    def new_call(self, direction: str) -> Call:
        """A call object without a dialog yet."""
        number = next(self.numbers)
        self.calls[number] = call = Call(self, number, direction=direction)
        return call

    def adopt(self, pj_id: int, direction: str) -> Call:
        """A call object for a dialog that pjsua2 has already."""
        number = next(self.numbers)
        self.calls[number] = call = Call(self, number, pj_id=pj_id, direction=direction)
        return call

    def rings(self, pj_id: int, message: str, source: str) -> None:
        """An INVITE: report it and do what the answer policy says."""
        call, policy = self.adopt(pj_id, "in"), dict(self.policy)
        info = call.getInfo()
        display, _, rest = str(info.remoteUri).rpartition("<")
        say(
            "incoming",
            call=call.number,
            from_uri=rest.rstrip(">") if display or rest.endswith(">") else str(info.remoteUri),
            display=display.strip().strip('"'),
            to_uri=message.split(" ", 2)[1],
            sip_call_id=info.callIdString,
            source=source,
            headers=headers_of(message),
            sdp=message.partition("\r\n\r\n")[2],
        )
        kind = policy["kind"]
        if policy.get("tone_hz"):
            call.speak(tone_voice(self.options.clock_rate_hz, policy["tone_hz"], policy.get("dbfs", -15.0)))
        if kind == "manual":
            return
        if kind == "refuse":
            call.end(int(policy["code"]))
            return
        if policy.get("ring", True) or kind == "ring":
            self._respond(call, int(policy.get("ring_code", 180)))
        if kind == "answer":
            self.after(float(policy.get("after_s", 0)), lambda: self._respond(call, 200))

    def _respond(self, call: Call, code: int) -> None:
        if call.over:
            return
        prm = pj.CallOpParam(True)
        prm.statusCode, prm.opt.videoCount, prm.opt.textCount = code, 0, 0
        call.answer(prm)

    def close_call(self, call: Call) -> None:
        """Frees a finished call's pjsua2 objects; its recording is complete a moment later."""
        recorded = call.recorder is not None
        call.recorder = call.voice = call.digit_voice = call.audio = None
        self.after(0.15, lambda: self._bury(call, recorded))

    def _bury(self, call: Call, recorded: bool) -> None:
        path = str(call.path) if recorded else None
        spans = [asdict(span) for span in tones.spans(call.path)] if recorded and self._can_analyse() else []
        say("recorded", call=call.number, path=path, from_t=call.recorded_from, spans=spans)
        self.calls.pop(call.number, None)

    def _can_analyse(self) -> bool:
        return self.options.clock_rate_hz == tones.RATE_HZ

    # -- commands

    def command(self, line: bytes) -> None:
        """Runs one command line and writes its reply."""
        asked: dict[str, Any] = {}
        try:
            asked = json.loads(line)
            do = getattr(self, f"do_{asked['do']}", None)
            if do is None:
                raise ValueError(f"there is no command {asked['do']!r}")
            arguments = {key: value for key, value in asked.items() if key not in ("do", "id")}
            if "call" in arguments:
                number = arguments["call"]
                if number not in self.calls or self.calls[number].over:
                    raise ValueError(f"call {number} is over or was never there")
                arguments["call"] = self.calls[number]
            write({"re": asked.get("id"), "ok": True, **(do(**arguments) or {})})
        except Exception as error:  # the reply carries it
            write({"re": asked.get("id"), "ok": False, "error": explain(error)})

    def do_register(
        self,
        *,
        user: str,
        password: str,
        server: str,
        domain: str = "",
        realm: str = "*",
        transport: str = "udp",
        auth_user: str = "",
        expires_s: int = 300,
        retry_s: int = 0,
    ) -> None:
        """REGISTER at `server` (address:port); later calls go out through it. The result is an event."""
        config = self._account_config()
        display = f'"{self.options.display}" ' if self.options.display else ""
        domain = domain or server
        config.idUri = f"{display}<sip:{user}@{domain}>"
        config.regConfig.registrarUri = f"sip:{domain}"
        config.regConfig.timeoutSec, config.regConfig.retryIntervalSec = expires_s, retry_s
        config.regConfig.firstRetryIntervalSec = retry_s
        route = f"<sip:{server};transport={transport};lr>"
        config.sipConfig.proxies.append(route)
        config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", realm, auth_user or user, 0, password))
        self.account.modify(config)
        self.realm_server = domain

    def do_unregister(self) -> None:
        """REGISTER with Expires 0."""
        self.account.setRegistration(False)

    def do_policy(self, *, kind: str, **rest: Any) -> None:
        """Answer policy of later calls: manual, answer (after_s), refuse (code), ring (for ever)."""
        if kind not in ("manual", "answer", "refuse", "ring"):
            raise ValueError(f"answer policy {kind!r} is not one of manual, answer, refuse, ring")
        self.policy = {"kind": kind, **rest}

    def do_refuse_refer(self, *, code: int) -> None:
        """Later REFERs get `code`; 0 accepts them again."""
        self.refuse_refer = code

    def do_dial(
        self,
        *,
        uri: str,
        headers: Mapping[str, str] | None = None,
        from_uri: str = "",
        tone_hz: float | list[float] = 0,
        dbfs: float = -15.0,
        late_offer: bool = False,
    ) -> dict[str, object]:
        """INVITE. A bare user is completed with the registered domain."""
        if not uri.startswith(("sip:", "sips:")):
            uri = f"sip:{uri}@{self.realm_server}"
        call = self.new_call("out")
        prm = pj.CallOpParam(True)
        prm.opt.videoCount = prm.opt.textCount = 0
        if late_offer:
            prm.opt.flag |= pj.PJSUA_CALL_NO_SDP_OFFER
        if from_uri:
            prm.txOption.localUri = from_uri
        for name, value in (headers or {}).items():
            header = pj.SipHeader()
            header.hName, header.hValue = name, value
            prm.txOption.headers.append(header)
        if tone_hz:
            call.speak(tone_voice(self.options.clock_rate_hz, tone_hz, dbfs))
        try:
            call.makeCall(uri, prm)
        except pj.Error:
            self.calls.pop(call.number, None)
            self.graveyard.append(call)
            raise
        return {"call": call.number, "path": str(call.path)}

    def do_respond(self, *, call: Call, code: int) -> None:
        """A provisional or final response to an incoming call: 180, 183, 200, 486 ..."""
        if code >= 300:
            call.end(code)
            return
        if code == 183 and self.options.early_tone_hz:
            call.speak(tone_voice(self.options.clock_rate_hz, self.options.early_tone_hz, -15.0))
        self._respond(call, code)

    def do_hangup(self, *, call: Call, code: int = 0, reason: str = "") -> None:
        """BYE, CANCEL or a refusal."""
        call.end(code, reason)

    def do_digits(self, *, call: Call, digits: str, via: str = "rfc4733", ms: int = 160) -> None:
        """Presses keys: rfc4733 events, SIP INFO, or in-band tones."""
        if via == "inband":
            keys = pj.ToneDescVector()
            for digit in digits:
                row_hz, column_hz = tones.dtmf_hz(digit)
                key = pj.ToneDesc()
                key.freq1, key.freq2, key.on_msec, key.off_msec, key.volume = row_hz, column_hz, ms, 100, 8000
                keys.append(key)
            voice = pj.ToneGenerator()
            voice.createToneGenerator(self.options.clock_rate_hz)
            voice.play(keys, False)
            call.digit_voice = voice
            if call.audio is None:
                raise ValueError("no media yet: in-band digits cannot be heard")
            voice.startTransmit(call.audio)
            return
        methods = {"rfc4733": pj.PJSUA_DTMF_METHOD_RFC2833, "info": pj.PJSUA_DTMF_METHOD_SIP_INFO}
        if via not in methods:
            raise ValueError(f"{via!r} is not one of rfc4733, info, inband")
        prm = pj.CallSendDtmfParam()
        prm.method, prm.digits, prm.duration = methods[via], digits, ms
        call.sendDtmf(prm)

    def do_tone(self, *, call: Call, hz: float | list[float], dbfs: float = -15.0) -> None:
        """The far end hears this tone until something else is played."""
        call.speak(tone_voice(self.options.clock_rate_hz, hz, dbfs))

    def do_play(self, *, call: Call, wav: str, loop: bool = False) -> None:
        """The far end hears this file."""
        player = pj.AudioMediaPlayer()
        player.createPlayer(wav, 0 if loop else pj.PJMEDIA_FILE_NO_LOOP)
        call.speak(player)

    def do_quiet(self, *, call: Call) -> None:
        """The far end hears silence."""
        call.speak(None)

    def do_hold(self, *, call: Call) -> None:
        """Re-INVITE with a=sendonly (RFC 3264 8.4)."""
        call.setHold(pj.CallOpParam())

    def do_unhold(self, *, call: Call) -> None:
        """Re-INVITE with a=sendrecv."""
        prm = pj.CallOpParam(True)
        prm.opt.flag, prm.opt.videoCount, prm.opt.textCount = pj.PJSUA_CALL_UNHOLD, 0, 0
        call.reinvite(prm)

    def do_refer(self, *, call: Call, target: str, keep: bool = False) -> None:
        """Blind transfer (RFC 3515); hangs up once the target answered, unless `keep`."""
        call.keep_after_refer = keep
        call.xfer(target, pj.CallOpParam(True))

    def do_refer_to(self, *, call: Call, other: int, keep: bool = False) -> None:
        """Attended transfer: the far end of `call` shall replace us in call number `other` (RFC 3891)."""
        if other not in self.calls or self.calls[other].over:
            raise ValueError(f"call {other} is over or was never there")
        call.keep_after_refer = keep
        call.xferReplaces(self.calls[other], pj.CallOpParam(True))

    def do_stats(self, *, call: Call) -> dict[str, object]:
        """RTP counters since the stream began, codec and SRTP of the call."""
        info = call.getInfo()
        index = next((i for i in range(info.media.size()) if info.media[i].type == pj.PJMEDIA_TYPE_AUDIO), 0)
        stat, stream = call.getStreamStat(index), call.getStreamInfo(index)
        rx, tx = stat.rtcp.rxStat, stat.rtcp.txStat
        return {
            "codec": f"{stream.codecName}/{stream.codecClockRate}",
            "srtp": stream.proto in (pj.PJMEDIA_TP_PROTO_RTP_SAVP,),
            "peer": stream.remoteRtpAddress,
            "rx_packets": rx.pkt,
            "rx_lost": rx.loss,
            "rx_jitter_us": rx.jitterUsec.mean,
            "tx_packets": tx.pkt,
        }

    def do_report(self, *, call: Call) -> dict[str, object]:
        """What was heard so far; the last half second may still be in the recorder's buffer."""
        if call.recorder is None or not self._can_analyse():
            return {"from_t": call.recorded_from, "spans": []}
        return {"from_t": call.recorded_from, "spans": [asdict(span) for span in tones.spans(call.path)]}

    def do_message(self, *, call: Call, body: str) -> None:
        """MESSAGE inside the dialog (RFC 3428)."""
        prm = pj.SendInstantMessageParam()
        prm.content, prm.contentType = body, "text/plain"
        call.sendInstantMessage(prm)

    def do_vanish(self) -> None:
        """The power plug is pulled: no BYE, no un-REGISTER."""
        os._exit(0)

    def do_quit(self) -> None:
        """Hang up everything and end."""
        self.stopping = True

    # -- the loop

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Runs `do` on this thread, outside of any callback."""
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self.order), do))

    def turn(self) -> None:
        """One round of pjsua2's events and due timers."""
        self.endpoint.libHandleEvents(POLL_MS)
        while self.timers and self.timers[0][0] <= time.monotonic():
            due = heapq.heappop(self.timers)[2]
            try:
                due()
            except Exception as error:  # the phone goes on; the test sees the fault
                say("fault", error=explain(error))

    def run(self) -> None:
        """Until stdin closes or `quit`."""
        waiting = b""
        while not self.stopping:
            self.turn()
            while not self.stopping and select.select([0], [], [], 0)[0]:
                read = os.read(0, 65536)
                if not read:
                    self.stopping = True
                *lines, waiting = (waiting + read).split(b"\n")
                for line in lines:
                    self.command(line)

    def stop(self, within_s: float = 2.0) -> None:
        """Hangs up, un-registers and waits, bounded, for the far ends and for complete recordings."""
        deadline = time.monotonic() + within_s
        for call in list(self.calls.values()):
            with contextlib.suppress(pj.Error):  # it ended in this very moment
                call.end()
        if self.account.isValid() and self.account.getInfo().regIsActive:
            self.account.setRegistration(False)
        while time.monotonic() < deadline and (self.calls or self.account.getInfo().regIsActive):
            self.turn()
        say("bye")


def main(argument: str) -> None:
    """Runs the phone described by a JSON object of `Options`."""
    os.dup2(1, REPORTS)
    os.dup2(2, 1)
    phone = Phone(Options(**json.loads(argument)))
    phone.start()
    phone.run()
    phone.stop()
    os._exit(0)  # destroying the library takes a second or two and has nothing left to tell anybody


if __name__ == "__main__":
    main(sys.argv[1])
