"""Where INVITEs come in: admitted legs become `Leg`, the rest gets 503 with Retry-After (RFC 3261 21.5.4)."""

from typing import TYPE_CHECKING

import pjsua2 as pj

from pbx.core.legs import Incoming
from pbx.sip import wire
from pbx.sip.faults import guarded
from pbx.sip.leg import Leg

if TYPE_CHECKING:
    from pbx.sip.owner import Owner


class Line(pj.Account):
    """An account of ours: no registration, only a name to call from and to be called at."""

    def __init__(self, owner: "Owner", config: pj.AccountConfig) -> None:
        super().__init__()
        self._owner = owner
        self.create(config)

    def callback_failed(self, name: str) -> None:
        """Log and count an exception in a callback."""
        self._owner.callback_failed(name, None)

    @guarded("onIncomingCall")
    def onIncomingCall(self, prm: pj.OnIncomingCallParam) -> None:
        """An INVITE outside a dialog. Whatever happens here, the call id ends in an object that is kept."""
        owner = self._owner
        owner.counts["incoming"] += 1
        if owner.incoming_legs >= owner.admission:
            refusal = Refusal(owner, self, prm.callId)
            refusal.refuse()
            return
        leg = Leg(owner, self, owner.new_leg_id(), prm.callId, inbound=True)
        owner.admit(leg)
        source = prm.rdata.srcAddress
        invite = wire.read_invite(prm.rdata.wholeMsg)
        owner.emit(
            Incoming(
                leg=leg.leg_id,
                to_user=invite.to_user,
                from_user=invite.from_user,
                from_display=invite.from_display,
                sip_call_id=invite.call_id,
                source=source,
                headers=invite.headers,
            )
        )

    @guarded("onIncomingSubscribe")
    def onIncomingSubscribe(self, prm: pj.OnIncomingSubscribeParam) -> None:
        """Presence is the edge's; refuse (RFC 6665 4.2.1.2)."""
        prm.code = 403

    @guarded("onInstantMessage")
    def onInstantMessage(self, prm: pj.OnInstantMessageParam) -> None:
        """Messages are not for us; the library has answered 200."""


class Refusal(pj.Call):
    """An INVITE beyond the admission limit: refused, kept until it is over, never told to the application."""

    def __init__(self, owner: "Owner", line: Line, call_id: int) -> None:
        super().__init__(line, call_id)
        self._owner = owner
        self.slot = -1
        self._over = False
        owner.take_slot(self, call_id)

    def callback_failed(self, name: str) -> None:
        """Log and count an exception in a callback."""
        self._owner.callback_failed(name, None)

    def refuse(self) -> None:
        """Send 503 with Retry-After.

        `hangup` would lose the header while the INVITE is being handed to us.
        """
        self._owner.counts["rejected_overload"] += 1
        self.answer(self._owner.params.overload)

    @guarded("onCallState")
    def onCallState(self, prm: pj.OnCallStateParam) -> None:
        """Let go of the object once the library has."""
        if not self.isActive() and not self._over:
            self._over = True
            self._owner.ended(self)
