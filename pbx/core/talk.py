"""Caller and clinician connected: hold, transfer, and what happens when one side is lost. Pure."""

from dataclasses import replace
from datetime import datetime

from pbx.core.call_events import (
    Command,
    HangUpOffer,
    Log,
    Music,
    OfferEnded,
    OfferHeld,
    ReturnToFlow,
    SetTimer,
    TimerFired,
    TransferAsked,
)
from pbx.core.call_state import (
    OUTCOMES,
    CallState,
    Offer,
    OfferPhase,
    Phase,
    Step,
    close,
    offer_by,
    offer_log,
)
from pbx.core.causes import Cause


def connected_offer_ended(state: CallState, event: OfferEnded, now: datetime) -> Step:
    offer = offer_by(state, event.offer)
    if offer is None:
        return state, ()
    if offer.number != state.clinician:  # a transfer target that did not come up: the two go on talking
        rest = tuple(o for o in state.offers if o.number != offer.number)
        outcome = OUTCOMES.get(event.cause, "unreachable")
        return replace(state, offers=rest), (offer_log(offer, outcome, now),)
    pending = [o for o in state.offers if o.transfer_of == offer.number]
    if pending:  # a blind transfer: the referrer may hang up at once, the caller waits for the target
        return replace(
            state,
            phase=Phase.HUNTING,
            clinician=None,
            offers=tuple(pending),
            plan=(offer.candidate,),
            place=0,
            round=1,
        ), (
            Log(kind="transferring", detail={"person": offer.candidate.person}),
            Music(on=True),
            SetTimer(key="ring", seconds=state.limits.ring_s),
        )
    over = replace(state, phase=Phase.FLOW, clinician=None, offers=(), plan=(), flow_rests=False)
    if event.cause is Cause.NORMAL:
        return over, (Log(kind="clinician-left"), ReturnToFlow(outcome="done"))
    return replace(over, lost=offer.candidate), (
        Log(kind="clinician-lost", detail={"person": offer.candidate.person, "cause": str(event.cause)}),
        ReturnToFlow(outcome="dropped"),
    )


def transfer_asked(state: CallState, event: TransferAsked, now: datetime) -> Step:
    if event.offer != state.clinician:
        return state, (HangUpOffer(offer=event.new_offer),)
    target = Offer(
        number=event.new_offer,
        candidate=event.candidate,
        endpoint=0,
        phase=OfferPhase.DIALLED,
        since=now,
        transfer_of=event.offer,
    )
    return replace(
        state, offers=(*state.offers, target), next_offer=max(state.next_offer, event.new_offer + 1)
    ), (
        Log(kind="transfer", detail={"offer": event.new_offer, "person": event.candidate.person}),
        SetTimer(key="ring", seconds=state.limits.ring_s),
    )


def late_transfer(state: CallState, event: TransferAsked, now: datetime) -> Step:
    return state, (HangUpOffer(offer=event.new_offer),)


def offer_held(state: CallState, event: OfferHeld, now: datetime) -> Step:
    if event.offer != state.clinician:
        return state, ()
    return state, (Log(kind="held" if event.held else "resumed"), Music(on=event.held))


def connected_timer(state: CallState, event: TimerFired, now: datetime) -> Step:
    if event.key == "call":
        return close(state, Cause.TIMEOUT, now, hang_up=True)
    if event.key != "ring":
        return state, ()
    pending = [o for o in state.offers if o.transfer_of is not None and o.number != state.clinician]
    rest = tuple(o for o in state.offers if o not in pending)
    commands: list[Command] = []
    for offer in pending:
        commands += [HangUpOffer(offer=offer.number), offer_log(offer, "no-answer", now)]
    return replace(state, offers=rest), tuple(commands)
