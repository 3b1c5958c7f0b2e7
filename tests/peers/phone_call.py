"""One call of the phone program, and how the program reports.

The object of a call lives until its dialog is over: `Owner` keeps it and frees it outside of pjsua2's
callbacks. What the call receives is recorded from the first media on; an always silent source keeps the
recording's clock running through holds and gaps.
"""

import importlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

pj: Any = importlib.import_module("pjsua2")  # typed stubs cover the engine's part only; the phone uses more

REPORTS = 3  # descriptor of the reports: pjsua2 itself prints to 1 while it starts


def headers_of(message: str) -> dict[str, str]:
    """Header fields of a SIP message, lower-case names, repeated ones joined by a comma (RFC 3261 7.3.1)."""
    out: dict[str, str] = {}
    head = message.replace("\r\n", "\n").split("\n\n", 1)[0]
    for line in head.replace("\n ", " ").replace("\n\t", " ").split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            key = name.strip().lower()
            out[key] = f"{out[key]}, {value.strip()}" if key in out else value.strip()
    return out


def say(event: str, **fields: object) -> None:
    """One event line on stdout."""
    write({"event": event, "t": round(time.time(), 4), **fields})


def write(message: Mapping[str, object]) -> None:
    """One JSON line on stdout; a reader that has gone away ends the phone."""
    line = json.dumps(message, default=str).encode() + b"\n"
    try:
        while line:
            line = line[os.write(REPORTS, line) :]
    except BrokenPipeError:
        os._exit(1)


def explain(error: Exception) -> str:
    """One line for an error; pjsua2 keeps its text in `info()`."""
    return str(error.info()) if isinstance(error, pj.Error) else f"{type(error).__name__}: {error}"


def received_by(prm: Any) -> str:
    """The SIP message behind a state change, "" when a timer or a command of ours caused it."""
    event = prm.e
    if event.type != pj.PJSIP_EVENT_TSX_STATE or event.body.tsxState.type != pj.PJSIP_EVENT_RX_MSG:
        return ""
    return str(event.body.tsxState.src.rdata.wholeMsg)


def tone_voice(rate_hz: int, hz: float | list[float], dbfs: float) -> Any:
    """An endless tone, or two mixed, at RMS level `dbfs` in sum."""
    pair = [hz] if isinstance(hz, int | float) else hz
    one = pj.ToneDesc()
    one.freq1, one.freq2 = int(pair[0]), int(pair[1]) if len(pair) > 1 else 0
    one.on_msec, one.off_msec = 1000, 0
    one.volume = min(32767, int(32768 * 10 ** (dbfs / 20) * (2 / len(pair)) ** 0.5))
    descs = pj.ToneDescVector()
    descs.append(one)
    voice = pj.ToneGenerator()
    voice.createToneGenerator(rate_hz)
    voice.play(descs, True)
    return voice


class Owner(Protocol):
    """What a call needs of its phone."""

    account: Any  # pjsua2 account the call belongs to
    hush: Any  # silent source
    refuse_refer: int  # status for REFER, 0 accepts

    def recording_of(self, number: int) -> Path:
        """Where that call is recorded."""

    def new_call(self, direction: str) -> "Call":
        """A call object without a dialog yet."""

    def adopt(self, pj_id: int, direction: str) -> "Call":
        """A call object for a dialog that pjsua2 has already."""

    def close_call(self, call: "Call") -> None:
        """The dialog is over: free what belongs to it."""

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Runs `do` later, outside of any callback."""


class Call(pj.Call):  # type: ignore[misc]  # pjsua2 is untyped here
    """One dialog. Its audio: `voice` is what the far end hears, `recorder` what it says."""

    def __init__(
        self, phone: Owner, number: int, *, pj_id: int | None = None, direction: str = "out"
    ) -> None:
        super().__init__(phone.account, pj.PJSUA_INVALID_ID if pj_id is None else pj_id)
        self.phone, self.number, self.direction = phone, number, direction
        self.began = time.monotonic()
        self.answered = self.over = self.hung_up = False
        self.recorder: Any = None
        self.recorded_from = 0.0
        self.path = phone.recording_of(number)
        self.voice: Any = None
        self.digit_voice: Any = None
        self.audio: Any = None  # the call's conference port while it may be heard
        self.keep_after_refer = False

    # -- callbacks: pjsua2 swallows what they raise, so each is wrapped by `_told`

    def onCallState(self, prm: Any) -> None:
        self._told(self._state_changed, prm)

    def onCallMediaState(self, prm: Any) -> None:
        self._told(self._media_changed, prm)

    def onDtmfDigit(self, prm: Any) -> None:
        via = "info" if prm.method == pj.PJSUA_DTMF_METHOD_SIP_INFO else "rfc4733"
        say("digit", call=self.number, digit=prm.digit, via=via)

    def onCallTransferRequest(self, prm: Any) -> None:
        self._told(self._refer_received, prm)

    def onCallTransferStatus(self, prm: Any) -> None:
        code, final = prm.statusCode, bool(prm.finalNotify)
        say("transfer_status", call=self.number, code=code, final=final)
        if final and 200 <= code < 300 and not self.keep_after_refer:
            self.phone.after(0, self.end)

    def onCallReplaced(self, prm: Any) -> None:
        new = self.phone.adopt(prm.newCallId, "in")
        prm.newCall = new
        say("replaced", call=self.number, new_call=new.number)

    def _told(self, handle: Callable[[Any], None], prm: Any) -> None:
        try:
            handle(prm)
        except Exception as error:  # reported: pjsua2 would print and forget it
            say("fault", call=self.number, error=explain(error))

    def _state_changed(self, prm: Any) -> None:
        info = self.getInfo()
        message = received_by(prm)
        code = info.lastStatusCode
        ms = round((time.monotonic() - self.began) * 1000)
        if info.state == pj.PJSIP_INV_STATE_EARLY and self.direction == "out":
            kind = "ringing" if code == 180 else "progress"
            say(kind, call=self.number, code=code, ms=ms, headers=headers_of(message))
        elif info.state == pj.PJSIP_INV_STATE_CONFIRMED and not self.answered:
            self.answered = True
            say(
                "answered",
                call=self.number,
                ms=ms,
                sip_call_id=info.callIdString,
                headers=headers_of(message),
            )
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED and not self.over:
            self.over, self.audio = True, None
            say(
                "ended",
                call=self.number,
                code=code,
                reason=info.lastReason,
                by_peer=not self.hung_up,
                was_answered=self.answered,
                ms=ms,
                headers=headers_of(message),
            )
            self.phone.after(0, lambda: self.phone.close_call(self))

    def _media_changed(self, prm: Any) -> None:
        self.audio = None
        info = self.getInfo()  # held: iterating a temporary's media reads freed memory
        for index in range(info.media.size()):
            media = info.media[index]
            if media.type != pj.PJMEDIA_TYPE_AUDIO:
                continue
            status, way = media.status, media.dir
            state = {
                pj.PJSUA_CALL_MEDIA_ACTIVE: "active",
                pj.PJSUA_CALL_MEDIA_LOCAL_HOLD: "local_hold",
                pj.PJSUA_CALL_MEDIA_REMOTE_HOLD: "remote_hold",
            }.get(status, "none")
            if state in ("active", "remote_hold"):
                self._connect(self.getAudioMedia(index))
            sends, receives = bool(way & pj.PJMEDIA_DIR_ENCODING), bool(way & pj.PJMEDIA_DIR_DECODING)
            say("media", call=self.number, state=state, sends=sends, receives=receives)
            return

    def _refer_received(self, prm: Any) -> None:
        if self.phone.refuse_refer:
            prm.statusCode = self.phone.refuse_refer
            say("refer", call=self.number, target=prm.dstUri, refused=prm.statusCode)
            return
        new = self.phone.new_call("out")
        prm.newCall = new
        prm.statusCode = pj.PJSIP_SC_ACCEPTED
        say("refer", call=self.number, target=prm.dstUri, new_call=new.number)

    # -- audio

    def _connect(self, audio: Any) -> None:
        self.audio = audio
        if self.recorder is None:
            self.recorder = pj.AudioMediaRecorder()
            self.recorder.createRecorder(str(self.path))
            self.recorded_from = time.time()
            self.phone.hush.startTransmit(
                self.recorder
            )  # keeps the file's clock running through holds and gaps
            say("recording", call=self.number, path=str(self.path), from_t=self.recorded_from)
        audio.startTransmit(self.recorder)
        for voice in (self.voice, self.digit_voice):
            if voice is not None:
                voice.startTransmit(audio)

    def speak(self, voice: Any) -> None:
        """The far end hears `voice` from now on (None: nothing), also when media starts only later."""
        old, self.voice = self.voice, voice
        if self.audio is not None and voice is not None:
            voice.startTransmit(self.audio)
        if self.audio is not None and old is not None:
            old.stopTransmit(self.audio)

    def end(self, code: int = 0, reason: str = "") -> None:
        """BYE, CANCEL or a final response, whichever the dialog's state asks for."""
        if self.over:
            return
        self.hung_up = True
        prm = pj.CallOpParam()
        if code:
            prm.statusCode = code
        if reason:
            prm.reason = reason
        self.hangup(prm)
