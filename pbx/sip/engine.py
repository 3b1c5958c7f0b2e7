"""The telephony engine as the rest of the worker sees it: commands in, events out, no pjsua2 object anywhere.

All commands may be given from any thread, return at once and raise nothing about the leg: what became of them
is told by events (pbx.core.legs), which arrive on the event loop that ran `start`, in order. A command for a
leg that has ended is ignored. Not here: what a call does (pbx.calls), how a leg works (leg), the pj thread
(owner).
"""

import asyncio
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pbx.core.causes import Cause
from pbx.core.legs import Ended, LegEvent, LegId, PlayId
from pbx.sip.faults import text_of_error
from pbx.sip.leg import Leg
from pbx.sip.owner import Command, EngineError, Owner
from pbx.sip.settings import EngineSettings

__all__ = ["Engine", "EngineError", "EngineSettings"]

log = logging.getLogger("careline.engine")
START_WITHIN_S = 20.0


class Engine:
    """One SIP endpoint with its media; at most one in a process, because pjsua is a singleton."""

    def __init__(self, settings: EngineSettings, sink: Callable[[LegEvent], None]) -> None:
        """`sink` is called on the loop thread, once an event; an exception of it is logged and counted."""
        self._settings = settings
        self._sink = sink
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._leg_ids = itertools.count(1)
        self._play_ids = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner: Owner | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._closing = (
            threading.Lock()
        )  # between `dial` and the end of the pj thread: no dial without its Ended
        self._sink_errors = 0

    async def start(self) -> None:
        """Open the endpoint. Raises EngineError when a port is taken or a file is missing."""
        self._loop = asyncio.get_running_loop()
        self._owner = Owner(self._settings, self._commands, lambda: LegId(next(self._leg_ids)), self._post)
        self._thread = threading.Thread(target=self._owner.run, name="pj", daemon=True)
        self._thread.start()
        opened = await asyncio.to_thread(self._owner.opened.wait, START_WITHIN_S)
        if not opened:
            raise EngineError(
                f"The SIP endpoint did not open within {START_WITHIN_S:.0f} s; look at the log above."
            )
        if self._owner.failure is not None:
            raise EngineError(self._owner.failure)

    async def stop(self, within_s: float = 10.0) -> None:
        """Hang up every leg, tell its Ended, close the endpoint. May be called twice.

        Raises EngineError when the pj thread has not ended within `within_s` (and then it never will: leave
        the process by os._exit).
        """
        owner, thread = self._owner, self._thread
        if owner is None or thread is None:
            return
        self._commands.put((Owner.begin_stop, None, (within_s,)))
        await asyncio.to_thread(thread.join, within_s + 5.0)
        self._close_queue()
        if thread.is_alive():
            raise EngineError(
                f"The pj thread did not end within {within_s:.0f} s; leave the process by os._exit."
            )
        await asyncio.sleep(0)  # events posted last are delivered before we return

    # --- incoming legs -----------------------------------------------------------------------

    def ring(self, leg: LegId) -> None:
        """Send 180 Ringing."""
        self._commands.put((Leg.do_provisional, leg, (180,)))

    def progress(self, leg: LegId) -> None:
        """Send 183 with SDP: early media, so that play is heard before the answer."""
        self._commands.put((Leg.do_provisional, leg, (183,)))

    def answer(self, leg: LegId) -> None:
        """Send 200; Answered follows when the ACK has come."""
        self._commands.put((Leg.do_answer, leg, ()))

    def reject(self, leg: LegId, code: int, retry_after_s: int | None = None) -> None:
        """Refuse an incoming leg with a final status `code` (300-699) and an optional Retry-After."""
        if not 300 <= code <= 699:
            raise ValueError(f"{code} is not a final status that refuses; use 300 to 699.")
        self._commands.put((Leg.do_reject, leg, (code, retry_after_s)))

    def set_admission(self, max_calls: int) -> None:
        """From now on admit at most `max_calls` incoming legs at once; 0 drains: every INVITE gets 503."""
        self._commands.put((Owner.set_admission, None, (max_calls,)))

    # --- any leg -----------------------------------------------------------------------------

    def dial(
        self,
        target_uri: str,
        *,
        caller_user: str,
        caller_display: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> LegId:
        """Call `target_uri` ("sip:1001@address:port"); a failure of any kind is that leg's Ended event.

        From is `"caller_display" <sip:caller_user@our address>`; `headers` are added to the INVITE.
        """
        leg = LegId(next(self._leg_ids))
        with self._closing:
            if not self._closed:
                arguments = (leg, target_uri, caller_user, caller_display, dict(headers or {}))
                self._commands.put((Owner.dial, None, arguments))
                return leg
        if self._loop is not None and not self._loop.is_closed():
            over: LegEvent = Ended(leg=leg, cause=Cause.SHUTDOWN, code=0, by_peer=False)
            self._loop.call_soon_threadsafe(self._deliver, [over])
        return leg

    def hangup(self, leg: LegId, code: int = 0) -> None:
        """End the leg whatever its state: BYE, CANCEL or a final status (`code`, 480 when 0)."""
        self._commands.put((Leg.do_hangup, leg, (code,)))

    def hold(self, leg: LegId) -> None:
        """Put the far end on hold by re-INVITE (sendonly, RFC 3264 8.4); it hears the hold music."""
        self._commands.put((Leg.do_hold, leg, (True,)))

    def resume(self, leg: LegId) -> None:
        """Take the far end back from hold; its bridges and plays go on."""
        self._commands.put((Leg.do_hold, leg, (False,)))

    def send_digits(self, leg: LegId, digits: str) -> None:
        """Send keys (0-9 * # A-D) as RFC 4733 events, or as INFO when the far end has no telephone-event."""
        self._commands.put((Leg.do_send_digits, leg, (digits,)))

    def refer(self, leg: LegId, target_uri: str) -> None:
        """Blind transfer: ask the far end to call `target_uri` (RFC 3515).

        TransferProgress tells how it goes.
        """
        self._commands.put((Leg.do_refer, leg, (target_uri,)))

    def refer_to(self, leg: LegId, other_leg: LegId) -> None:
        """Attended transfer: ask the far end of `leg` to take the place of us in `other_leg` (RFC 3891)."""
        self._commands.put((Leg.do_refer_to, leg, (other_leg,)))

    # --- media -------------------------------------------------------------------------------

    def play(self, leg: LegId, files: Sequence[Path], *, loop: bool = False) -> PlayId:
        """Play WAV files (8 kHz mono 16-bit) without gaps; replaces a running play. One PlayEnded follows.

        Asked for before audio is there, it starts when it is.
        """
        play = PlayId(next(self._play_ids))
        self._commands.put((Leg.do_play, leg, (play, tuple(str(f) for f in files), loop)))
        return play

    def stop_play(self, leg: LegId) -> None:
        """Interrupt the running play; its PlayEnded says completed=False."""
        self._commands.put((Leg.do_stop_play, leg, ()))

    def music(self, leg: LegId, on: bool) -> None:
        """Switch hold music to the leg on or off, beside whatever else it hears."""
        self._commands.put((Leg.do_music, leg, (on,)))

    def bridge(self, a: LegId, b: LegId) -> None:
        """Let two legs hear each other; several bridges make a conference."""
        self._commands.put((Leg.do_bridge, a, (b,)))

    def unbridge(self, a: LegId, b: LegId) -> None:
        """Undo `bridge`."""
        self._commands.put((Leg.do_unbridge, a, (b,)))

    def record(self, path: Path, legs: Sequence[LegId]) -> None:
        """Record the mix of what `legs` say into one WAV.

        Ends by stop_record or with the last of the legs.
        """
        self._commands.put((Owner.record, None, (path, tuple(legs))))

    def stop_record(self, path: Path) -> None:
        """Close a recording; RecordingEnded follows when the file is complete."""
        self._commands.put((Owner.stop_record, None, (path,)))

    # --- numbers -----------------------------------------------------------------------------

    def counters(self) -> Mapping[str, int]:
        """Counts since the start and the present state: see meter.COUNTED; also "queue" and "sink_errors"."""
        counted = dict(self._owner.counts) if self._owner is not None else {}
        counted["queue"] = self._commands.qsize()
        counted["sink_errors"] = self._sink_errors
        return counted

    # --- inside ------------------------------------------------------------------------------

    def _post(self, events: list[LegEvent]) -> None:
        """Hand events from the pj thread to the loop."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver, events)
        except RuntimeError:  # the loop was closed under us: nobody is left to tell
            log.warning(
                "Events after the loop was closed", extra={"action": "events-lost", "count": len(events)}
            )

    def _deliver(self, events: list[LegEvent]) -> None:
        for event in events:
            try:
                self._sink(event)
            except Exception:
                self._sink_errors += 1
                extra = {"action": "sink-error", "leg": event.leg}
                log.error("The receiver of an event failed\n%s", text_of_error(), extra=extra)

    def _close_queue(self) -> None:
        """After the pj thread: dials nobody will make end here, later ones end in `dial`."""
        with self._closing:
            self._closed = True
            left: list[LegEvent] = []
            while True:
                try:
                    function, _, arguments = self._commands.get_nowait()
                except queue.Empty:
                    break
                if function is Owner.dial:
                    left.append(Ended(leg=arguments[0], cause=Cause.SHUTDOWN, code=0, by_peer=False))
            self._deliver(left)
