"""One leg: a pjsua2 Call with what we know about it. Lives and dies on the pj thread.

`do_…` methods are commands of the engine; `on…` methods are callbacks of the library; both end in events.
A leg says Ended exactly once, whoever ended it and however. Other legs are named by id, never by reference,
so that no cycle keeps a Call for the garbage collector, which may run on another thread.
"""

import logging
import time
from typing import TYPE_CHECKING

import pjsua2 as pj

from pbx.core import causes
from pbx.core.causes import Cause
from pbx.core.legs import (
    Answered,
    Digit,
    Ended,
    Held,
    LegId,
    MediaReady,
    PlayId,
    Progress,
    Replaced,
    TransferAsked,
    TransferProgress,
)
from pbx.sip import wire
from pbx.sip.digits import KEYS, DigitPairing
from pbx.sip.faults import guarded
from pbx.sip.life import Life
from pbx.sip.patch import Play

if TYPE_CHECKING:
    from pbx.sip.account import Line
    from pbx.sip.owner import Owner

log = logging.getLogger("careline.engine")
HOLD_TRIES = 8
HOLD_RETRY_S = 0.4


class Leg(pj.Call):
    """A dialog of ours, from the INVITE to DISCONNECTED."""

    def __init__(
        self,
        owner: "Owner",
        account: "Line",
        leg_id: LegId,
        call_id: int = pj.PJSUA_INVALID_ID,
        *,
        inbound: bool = False,
    ) -> None:
        super().__init__(account, call_id)
        self.owner = owner
        self.line = account
        self.leg_id = leg_id
        self.slot = -1  # call id of the library, once it has one
        self.inbound = inbound
        self.announced = (
            True  # False: made in case an INVITE with Replaces succeeds, unknown to the application
        )
        self.accepted = False  # we sent a final answer, or it is not ours to send
        self.confirmed = False
        self.over = False  # Ended was said
        self.ringing = False  # a provisional response above 100 came
        self.local_cause: Cause | None = None  # set while we end it
        self.audio: pj.AudioMedia | None = None
        self.audio_index = 0
        self.far_hold = False
        self.near_hold = False
        self.hold_wanted = False
        self.had_audio = False
        self.had_hold = False
        self.peers: set[LegId] = set()
        self.play: Play | None = None
        self.music = False
        self.lead_in_due = True
        self.recordings: set[str] = set()
        self.stand_in: LegId | None = None  # the leg made for an INVITE with Replaces
        self.digits = DigitPairing()
        self.rx = self.tx = self.lost = 0
        self.life = Life()

    def callback_failed(self, name: str) -> None:
        """Log and count an exception in a callback."""
        self.owner.callback_failed(name, self.leg_id)

    # --- commands ----------------------------------------------------------------------------

    def do_provisional(self, code: int) -> None:
        """180, or 183 with early media."""
        if self.inbound and not self.accepted:
            self.answer(self.owner.params.answers[code])

    def do_answer(self) -> None:
        """200; a second answer is ignored."""
        if self.inbound and not self.accepted:
            self.accepted = True
            self.lead_in_due = True
            self.owner.bounds.sent_200(self.leg_id, time.monotonic())
            try:
                self.answer(self.owner.params.answers[200])
            except pj.Error as error:  # mostly an offer without anything we can take; 488 was sent
                log.info(
                    "An offer was refused",
                    extra={"action": "answer", "leg": self.leg_id, "reason": error.reason},
                )
                self.finish(Cause.INCOMPATIBLE, 488)

    def do_reject(self, code: int, retry_after_s: int | None) -> None:
        """A final status instead of an answer."""
        if self.inbound and not self.accepted:
            self.finish(causes.of_status(code, ringing=True), code, retry_after_s)

    def do_hangup(self, code: int) -> None:
        """End it whatever its state."""
        if self.confirmed:
            self.finish(Cause.NORMAL)
        elif self.inbound and not self.accepted:
            code = code or 480
            self.finish(causes.of_status(code, ringing=True), code)
        else:
            self.finish(Cause.CANCELLED)

    def do_hold(self, on: bool, tries: int = HOLD_TRIES) -> None:
        """Hold or resume by re-INVITE; tried again while another offer is under way (RFC 3261 14.1)."""
        self.hold_wanted = on
        if on == self.near_hold or not self.confirmed:
            return
        prm = pj.CallOpParam(True)
        prm.opt.textCount = 0
        try:
            if on:
                self.setHold(prm)
            else:
                prm.opt.flag = pj.PJSUA_CALL_UNHOLD
                self.reinvite(prm)
        except pj.Error:
            if tries <= 1:
                raise
            self.owner.later(HOLD_RETRY_S, self.leg_id, Leg.again_hold, (on, tries - 1))
            return
        self.owner.later(HOLD_RETRY_S * 5, self.leg_id, Leg.again_hold, (on, tries - 1))

    def again_hold(self, on: bool, tries: int) -> None:
        """Try the re-INVITE once more when it did not take and is still wanted (a 491 of the far end)."""
        if self.hold_wanted == on and self.near_hold != on and tries > 0:
            self.do_hold(on, tries)

    def reanchor(self) -> None:
        """Offer our media again by re-INVITE: an rtpengine that was started anew learns the call by it.

        Whatever comes of it, the leg goes on; while another offer is under way nothing is sent.
        """
        try:
            self.reinvite(self.owner.params.reoffer)
        except pj.Error as error:
            log.info(
                "Media could not be offered again",
                extra={"action": "reanchor", "leg": self.leg_id, "reason": error.reason},
            )
        else:
            self.owner.counts["reanchored"] += 1

    def do_send_digits(self, digits: str) -> None:
        """RFC 4733, or INFO when the far end did not offer telephone-event."""
        if not set(digits) <= KEYS:
            raise ValueError("digits to send may be 0-9 * # A-D only")
        try:
            self.dialDtmf(digits)
        except pj.Error:
            prm = pj.CallSendDtmfParam()
            prm.method = pj.PJSUA_DTMF_METHOD_SIP_INFO
            prm.digits = digits
            self.sendDtmf(prm)

    def do_refer(self, target_uri: str) -> None:
        """Blind transfer."""
        if not self.confirmed:
            return
        self.xfer(target_uri, pj.CallOpParam(True))

    def do_refer_to(self, other: LegId) -> None:
        """Attended transfer; TransferProgress 481 when the other leg is gone."""
        other_leg = self.owner.legs.get(other)
        if other_leg is None or not other_leg.confirmed or not self.confirmed:
            self.owner.emit(TransferProgress(leg=self.leg_id, code=481, final=True))
            return
        self.xferReplaces(other_leg, pj.CallOpParam(True))

    def do_play(self, play: PlayId, files: tuple[str, ...], loop: bool) -> None:
        """See Patch.play."""
        self.owner.patch.play(self, play, files, loop)

    def do_stop_play(self) -> None:
        """See Patch.end_play."""
        self.owner.patch.end_play(self, completed=False)

    def do_music(self, on: bool) -> None:
        """See Patch.set_music."""
        self.owner.patch.set_music(self, on)

    def do_bridge(self, other: LegId) -> None:
        """See Patch.bridge."""
        other_leg = self.owner.legs.get(other)
        if other_leg is not None and other_leg is not self:
            self.owner.patch.bridge(self, other_leg)

    def do_unbridge(self, other: LegId) -> None:
        """See Patch.unbridge."""
        other_leg = self.owner.legs.get(other)
        if other_leg is not None:
            self.owner.patch.unbridge(self, other_leg)

    def finish(self, cause: Cause, code: int = 0, retry_after_s: int | None = None) -> None:
        """End the leg for a reason of ours.

        DISCONNECTED comes back inside hangup; if not, we say it ourselves.
        """
        if self.over or self.local_cause is not None:
            return
        self.local_cause = cause
        try:
            self.hangup(self.owner.params.hangup(cause, code, retry_after_s))
        except pj.Error as error:
            log.warning(
                "A leg could not be hung up",
                extra={"action": "hangup", "leg": self.leg_id, "reason": error.reason},
            )
        if not self.over:
            self._end(cause, code, by_peer=False)

    # --- callbacks ---------------------------------------------------------------------------

    @guarded("onCallState")
    def onCallState(self, prm: pj.OnCallStateParam) -> None:
        """States of the INVITE session (RFC 3261 13, 14)."""
        if self.over:
            return
        info = self.getInfo()
        if self.slot < 0:
            self.owner.take_slot(self, info.id)
        if info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            if self.local_cause is not None:
                self._end(self.local_cause, info.lastStatusCode, by_peer=False)
            else:
                self._ended_by_peer(prm.e, info.lastStatusCode)
        elif info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            if not self.confirmed:
                self.confirmed = self.accepted = True
                self.lead_in_due = self.lead_in_due or not self.inbound
                self.owner.counts["answered"] += 1
                self.owner.bounds.answered(self.leg_id, time.monotonic())
                self.owner.emit(Answered(leg=self.leg_id))
        elif info.state == pj.PJSIP_INV_STATE_EARLY and not self.inbound:
            self.ringing = True
            early = wire.has_sdp(_received(prm.e))
            self.owner.emit(Progress(leg=self.leg_id, code=info.lastStatusCode, early_media=early))

    @guarded("onCallMediaState")
    def onCallMediaState(self, prm: pj.OnCallMediaStateParam) -> None:
        """Audio began, changed or went: CallInfo is held in a variable, for its vector dies with it."""
        if self.over:
            return
        info = self.getInfo()
        audio, status = None, pj.PJSUA_CALL_MEDIA_NONE
        for index in range(len(info.media)):
            media = info.media[index]
            if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status != pj.PJSUA_CALL_MEDIA_NONE:
                status = media.status
                if media.audioConfSlot != pj.PJSUA_INVALID_ID:
                    audio = self.getAudioMedia(index)
                    self.audio_index = index
                break
        self.near_hold = status == pj.PJSUA_CALL_MEDIA_LOCAL_HOLD
        if audio is not None and not self.had_audio:
            self.had_audio = True
            self.owner.emit(MediaReady(leg=self.leg_id))
        far_hold = status == pj.PJSUA_CALL_MEDIA_REMOTE_HOLD
        if far_hold != self.far_hold and not self.near_hold:
            self.far_hold = far_hold
            self.owner.emit(Held(leg=self.leg_id, held=far_hold))
        self.audio = audio
        self.owner.patch.attach(self)

    @guarded("onStreamDestroyed")
    def onStreamDestroyed(self, prm: pj.OnStreamDestroyedParam) -> None:
        """The last moment at which the counts of a stream can be read."""
        if self.owner.legs.get(self.leg_id) is self:
            stat = self.getStreamStat(prm.streamIdx).rtcp
            self.rx += stat.rxStat.pkt
            self.tx += stat.txStat.pkt
            self.lost += stat.rxStat.loss

    @guarded("onDtmfDigit")
    def onDtmfDigit(self, prm: pj.OnDtmfDigitParam) -> None:
        """A key by RFC 4733 or by INFO application/dtmf-relay."""
        self._pressed(prm.digit, "info" if prm.method == pj.PJSUA_DTMF_METHOD_SIP_INFO else "rfc4733")

    def onDtmfEvent(self, prm: pj.OnDtmfEventParam) -> None:
        """Every packet of a key; onDtmfDigit tells what we want to know."""

    @guarded("onCallTsxState")
    def onCallTsxState(self, prm: pj.OnCallTsxStateParam) -> None:
        """A key by INFO application/dtmf, which the library does not read."""
        state = prm.e.body.tsxState
        tsx = state.tsx
        if tsx.method == "INFO" and tsx.role == pj.PJSIP_ROLE_UAS and tsx.state == pj.PJSIP_TSX_STATE_TRYING:
            self._pressed(wire.bare_digit(state.src.rdata.wholeMsg), "info")

    @guarded("onCallTransferRequest")
    def onCallTransferRequest(self, prm: pj.OnCallTransferRequestParam) -> None:
        """REFER (RFC 3515): the library dials after we return; the new Call is ours to keep."""
        uri = prm.dstUri
        if not self.owner.can_dial(uri, routed=True):
            prm.statusCode = pj.PJSIP_SC_DECLINE
            return
        leg = self.owner.referred_leg(self)
        prm.newCall = leg
        prm.statusCode = pj.PJSIP_SC_ACCEPTED
        prm.opt.textCount = 0
        target, _, replaces = uri.partition("?")
        other = self.owner.leg_of_replaces(replaces) if "replaces=" in replaces.lower() else None
        self.owner.emit(
            TransferAsked(leg=self.leg_id, target=target.strip("<> "), new_leg=leg.leg_id, replaces=other)
        )

    @guarded("onCallTransferStatus")
    def onCallTransferStatus(self, prm: pj.OnCallTransferStatusParam) -> None:
        """NOTIFY about our REFER."""
        self.owner.emit(TransferProgress(leg=self.leg_id, code=prm.statusCode, final=prm.finalNotify))

    @guarded("onCallReplaceRequest")
    def onCallReplaceRequest(self, prm: pj.OnCallReplaceRequestParam) -> None:
        """INVITE with Replaces (RFC 3891) for this dialog: a new leg stands by."""
        leg = self.owner.stand_in(self)
        prm.newCall = leg
        prm.opt.textCount = 0

    @guarded("onCallReplaced")
    def onCallReplaced(self, prm: pj.OnCallReplacedParam) -> None:
        """The new leg takes over; this one is disconnected next."""
        leg = self.owner.legs.get(self.stand_in) if self.stand_in is not None else None
        if leg is None:
            return
        self.stand_in = None
        leg.announced = True
        leg.accepted = True
        self.owner.bounds.sent_200(leg.leg_id, time.monotonic())
        self.local_cause = Cause.NORMAL
        self.owner.emit(Replaced(leg=self.leg_id, new_leg=leg.leg_id))

    # --- inside ------------------------------------------------------------------------------

    def _pressed(self, digit: str, via: str) -> None:
        digit = digit.upper()
        if digit in KEYS and self.digits.is_new(digit, via, time.monotonic()):
            self.owner.emit(Digit(leg=self.leg_id, digit=digit, via=via))

    def _ended_by_peer(self, event: pj.SipEvent, code: int) -> None:
        message = _received(event)
        q850 = wire.q850_of(message)
        by_peer = True
        if message.startswith("BYE "):
            cause = causes.of_bye(q850)
        elif message.startswith("SIP/2.0 ") and not self.inbound and not self.confirmed:
            cause = causes.of_response(code, q850, ringing=self.ringing)
        elif self.inbound and not self.confirmed:
            cancelled = code == 487 and not self.accepted
            cause, by_peer = (Cause.CANCELLED, True) if cancelled else (self._unanswered(code), False)
        elif (
            self.confirmed
        ):  # a re-INVITE or refresh failed, or the session timer ran out (RFC 4028 section 10)
            cause = Cause.UNREACHABLE
        else:
            cause = causes.of_status(code, ringing=self.ringing)
        self._end(cause, code, by_peer=by_peer)

    def _unanswered(self, code: int) -> Cause:
        """Cause of an incoming leg that ended before its ACK without CANCEL."""
        return Cause.TIMEOUT if self.accepted else causes.of_status(code, ringing=True)

    def _end(self, cause: Cause, code: int, *, by_peer: bool) -> None:
        """Say Ended once and hand the object to the grave, where it outlives this callback."""
        self.over = True
        self.audio = None
        self.owner.leg_over(
            self,
            Ended(
                leg=self.leg_id,
                cause=cause,
                code=code,
                by_peer=by_peer,
                rx_packets=self.rx,
                tx_packets=self.tx,
                rx_lost=self.lost,
            ),
        )


def _received(event: pj.SipEvent) -> str:
    """Text of the message that caused a transaction event; empty when a timer or we did."""
    if event.type != pj.PJSIP_EVENT_TSX_STATE:
        return ""
    state = event.body.tsxState
    return state.src.rdata.wholeMsg if state.type == pj.PJSIP_EVENT_RX_MSG else ""
