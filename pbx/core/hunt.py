"""Finding a clinician for a waiting caller: one after the other, bounded, accepted only by key. Pure."""

from dataclasses import replace
from datetime import datetime

from pbx.core.call_events import (
    Bridge,
    ClearTimer,
    Command,
    Dial,
    HangUpOffer,
    HuntAsked,
    Log,
    Music,
    OfferAnswered,
    OfferDigit,
    OfferEnded,
    OfferRinging,
    ReturnToFlow,
    SayToOffer,
    SetTimer,
    TimerFired,
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
    with_offer,
)
from pbx.core.causes import Cause

ACCEPT, DECLINE = "1", "2"


def hunt_asked(state: CallState, event: HuntAsked, now: datetime) -> Step:
    plan = event.candidates
    if state.lost is not None:  # whoever was talking with this caller knows the case: they are tried first
        plan = (state.lost, *(c for c in plan if c.person != state.lost.person))
    begun = replace(state, phase=Phase.HUNTING, plan=plan, place=-1, round=1, lost=None)
    log = Log(kind="hunt", detail={"roster": event.roster, "people": [c.person for c in plan]})
    if not plan:
        return nobody(begun, now, (log,))
    after, commands = next_candidate(begun, now)
    return after, (log, *commands)


def next_candidate(state: CallState, now: datetime) -> Step:
    """Dial the next person's endpoints all at once, or begin the next round, or give up."""
    place, rounds = state.place + 1, state.round
    if place >= len(state.plan):
        place, rounds = 0, rounds + 1
    if rounds > state.limits.rounds or not state.plan:
        return nobody(state, now, ())
    candidate = state.plan[place]
    offers = tuple(
        Offer(
            number=state.next_offer + i,
            candidate=candidate,
            endpoint=i,
            phase=OfferPhase.DIALLED,
            since=now,
        )
        for i in range(len(candidate.endpoints))
    )
    dials: list[Command] = []
    for offer in offers:
        endpoint = candidate.endpoints[offer.endpoint]
        dials.append(Dial(offer=offer.number, endpoint=endpoint, person=candidate.person))
        dials.append(
            Log(
                kind="offer",
                detail={
                    "offer": offer.number,
                    "person": candidate.person,
                    "name": candidate.name,
                    "endpoint": endpoint.kind,
                },
            )
        )
    return replace(
        state,
        place=place,
        round=rounds,
        offers=state.offers + offers,
        next_offer=state.next_offer + len(offers),
    ), (*dials, SetTimer(key="ring", seconds=state.limits.ring_s))


def nobody(state: CallState, now: datetime, first: tuple[Command, ...]) -> Step:
    """Everyone was tried: the flow goes on with its own way out; after a failed transfer it hunts anew."""
    outcome = "dropped" if state.flow_rests else "nobody"
    return replace(state, phase=Phase.FLOW, place=-1, plan=(), flow_rests=False), (
        *first,
        ClearTimer(key="ring"),
        Music(on=False),
        Log(kind="nobody"),
        ReturnToFlow(outcome=outcome),
    )


def offer_ringing(state: CallState, event: OfferRinging, now: datetime) -> Step:
    offer = offer_by(state, event.offer)
    if offer is None or offer.phase is not OfferPhase.DIALLED:
        return state, ()
    return with_offer(state, replace(offer, phase=OfferPhase.RINGING)), ()


def offer_answered(state: CallState, event: OfferAnswered, now: datetime) -> Step:
    offer = offer_by(state, event.offer)
    if offer is None or offer.phase in (OfferPhase.SCREENING, OfferPhase.CONNECTED):
        return state, ()
    if offer.transfer_of is not None:
        return connect(state, offer, now)
    screening = with_offer(state, replace(offer, phase=OfferPhase.SCREENING))
    return screening, (
        Log(kind="picked-up", detail={"offer": offer.number, "person": offer.candidate.person}),
        SayToOffer(offer=offer.number, prompt="screen"),
        SetTimer(key=f"accept-{offer.number}", seconds=state.limits.accept_s),
    )


def offer_digit(state: CallState, event: OfferDigit, now: datetime) -> Step:
    offer = offer_by(state, event.offer)
    if offer is None or offer.phase is not OfferPhase.SCREENING:
        return state, ()
    if event.digit == ACCEPT:
        return connect(state, offer, now)
    if event.digit == DECLINE:
        return drop_offer(state, offer, now, "declined", hang_up=True)
    return state, (SayToOffer(offer=offer.number, prompt="screen_wrong_key"),)


def offer_ended(state: CallState, event: OfferEnded, now: datetime) -> Step:
    offer = offer_by(state, event.offer)
    if offer is None:
        return state, ()
    if offer.phase is OfferPhase.SCREENING:
        outcome = "declined" if event.by_peer else "unreachable"
    else:
        outcome = OUTCOMES.get(event.cause, "unreachable")
    return drop_offer(state, offer, now, outcome, hang_up=False)


def hunt_timer(state: CallState, event: TimerFired, now: datetime) -> Step:
    if event.key == "call":
        return close(state, Cause.TIMEOUT, now, hang_up=True)
    waiting: list[Offer] = []
    if event.key == "ring":
        waiting = [o for o in state.offers if o.phase in (OfferPhase.DIALLED, OfferPhase.RINGING)]
    elif event.key.startswith("accept-"):
        waiting = [o for o in state.offers if f"accept-{o.number}" == event.key]
    commands: tuple[Command, ...] = ()
    for offer in waiting:
        outcome = "no-key" if offer.phase is OfferPhase.SCREENING else "no-answer"
        state, more = drop_offer(state, offer, now, outcome, hang_up=True)
        commands += more
    return state, commands


def drop_offer(state: CallState, offer: Offer, now: datetime, outcome: str, *, hang_up: bool) -> Step:
    """An offer is over without a connection; when it was the last of its person, the next one is tried."""
    state = replace(state, offers=tuple(o for o in state.offers if o.number != offer.number))
    commands: tuple[Command, ...] = (
        ClearTimer(key=f"accept-{offer.number}"),
        offer_log(offer, outcome, now),
        *((HangUpOffer(offer=offer.number),) if hang_up else ()),
    )
    if outcome == "declined":  # the person said no: their other devices need not go on ringing
        for other in [o for o in state.offers if o.candidate.person == offer.candidate.person]:
            state = replace(state, offers=tuple(o for o in state.offers if o.number != other.number))
            commands += (
                ClearTimer(key=f"accept-{other.number}"),
                HangUpOffer(offer=other.number),
                offer_log(other, "cancelled", now),
            )
    if state.offers or state.phase is not Phase.HUNTING:
        return state, commands
    after, more = next_candidate(state, now)
    return after, (*commands, *more)


def connect(state: CallState, offer: Offer, now: datetime) -> Step:
    """The bridge first; every other leg is let go after it."""
    others = [o for o in state.offers if o.number != offer.number]
    person = offer.candidate
    commands: list[Command] = [
        ClearTimer(key="ring"),
        ClearTimer(key=f"accept-{offer.number}"),
        SayToOffer(offer=offer.number, prompt=""),
        Music(on=False),
        Bridge(offer=offer.number),
        offer_log(offer, "accepted", now),
        Log(kind="answered", detail={"offer": offer.number, "person": person.person, "name": person.name}),
    ]
    for other in others:
        commands += [ClearTimer(key=f"accept-{other.number}"), HangUpOffer(offer=other.number)]
        if other.phase is not OfferPhase.CONNECTED:
            commands.append(offer_log(other, "cancelled", now))
    if not state.flow_rests:
        commands.append(ReturnToFlow(outcome="answered"))
    return replace(
        state,
        phase=Phase.CONNECTED,
        offers=(replace(offer, phase=OfferPhase.CONNECTED),),
        clinician=offer.number,
        answered_by=person.person,
        ever_connected=True,
        flow_rests=True,
    ), tuple(commands)
