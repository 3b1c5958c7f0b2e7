"""Bounds that no leg may escape: unanswered INVITEs, 200s without ACK, dials without an end, lost media.

A leg whose media stopped is offered anew by re-INVITE before it is given up: see `life`.

Each bound is a queue in order of its deadline, because every leg gets the same time; looking at the heads
costs nothing however many legs there are. Leg ids of ended legs stay in the queues until their deadline and
are skipped.
"""

import logging
from collections import deque
from typing import TYPE_CHECKING

import pjsua2 as pj

from pbx.core.causes import Cause
from pbx.core.legs import LegId
from pbx.sip.settings import EngineSettings

if TYPE_CHECKING:
    from pbx.sip.leg import Leg
    from pbx.sip.owner import Owner

log = logging.getLogger("careline.engine")
Queue = deque[tuple[float, LegId]]


class Bounds:
    """The deadlines of all legs of one engine; times are the monotonic clock in seconds."""

    def __init__(self, owner: "Owner", settings: EngineSettings) -> None:
        self._owner = owner
        self._s = settings
        self._answer: Queue = deque()
        self._ack: Queue = deque()
        self._dial: Queue = deque()
        self._media: Queue = deque()
        self._sample_s = min(settings.media_loss_s / 5, settings.reanchor_after_s / 2)

    def incoming(self, leg: LegId, now_s: float) -> None:
        """An INVITE was admitted."""
        self._answer.append((now_s + self._s.answer_within_s, leg))

    def sent_200(self, leg: LegId, now_s: float) -> None:
        """We answered; the ACK is due."""
        self._ack.append((now_s + self._s.ack_within_s, leg))

    def dialled(self, leg: LegId, now_s: float) -> None:
        """We sent an INVITE."""
        self._dial.append((now_s + self._s.dial_within_s, leg))

    def answered(self, leg: LegId, now_s: float) -> None:
        """The dialog is confirmed: audio is due, and its loss is watched."""
        self._media.append((now_s + self._sample_s, leg))

    def check(self, now_s: float) -> None:
        """End every leg whose time is over."""
        legs, counts = self._owner.legs, self._owner.counts
        while self._answer and self._answer[0][0] <= now_s:
            leg = legs.get(self._answer.popleft()[1])
            if leg is not None and not leg.accepted:
                counts["unanswered_freed"] += 1
                log.warning(
                    "An INVITE got no final answer", extra={"action": "unanswered", "leg": leg.leg_id}
                )
                leg.finish(Cause.TIMEOUT, 480)
        while self._ack and self._ack[0][0] <= now_s:
            leg = legs.get(self._ack.popleft()[1])
            if leg is not None and not leg.confirmed:
                counts["unacked_freed"] += 1
                leg.finish(Cause.TIMEOUT)
        while self._dial and self._dial[0][0] <= now_s:
            leg = legs.get(self._dial.popleft()[1])
            if leg is not None and not leg.confirmed:
                leg.finish(Cause.NO_ANSWER)
        while self._media and self._media[0][0] <= now_s:
            leg_id = self._media.popleft()[1]
            leg = legs.get(leg_id)
            if leg is None:
                continue
            self._look(leg, now_s)
            silent_s = leg.life.silent_s(now_s)
            if silent_s >= self._s.media_loss_s:
                counts["media_lost"] += 1
                log.warning("A leg lost its audio", extra={"action": "media-lost", "leg": leg_id})
                leg.finish(Cause.MEDIA_LOST)
                continue
            if leg.life.is_reanchor_due(now_s, self._s.reanchor_after_s):
                leg.reanchor()
            self._media.append((now_s + self._sample_s, leg_id))

    def _look(self, leg: "Leg", now_s: float) -> None:
        """Tell the leg's Life what came so far; none is expected on hold or without a stream."""
        try:
            stat = leg.getStreamStat(leg.audio_index).rtcp
        except pj.Error:  # no stream: the audio was refused, or held both ways
            leg.life.idle(now_s)
            return
        if leg.far_hold or leg.near_hold:
            leg.life.idle(now_s)
        else:
            leg.life.look(now_s, packets=stat.rxStat.pkt, reports=stat.txStat.updateCount)
