"""The pj thread: the only place where pjsua2 objects are made, called and freed.

Rules, each learned from a crash (tests/integration/test_engine_crash.py shows them):
- a Call stays in the registry until DISCONNECTED and is freed on this thread after that callback has
returned;
- it is not freed while another call has its slot: the destructor of a Call hangs up whoever has the slot now;
- an exception in a callback of pjsua2 would vanish: each callback is wrapped, logs and counts;
- tracebacks are logged as text: a kept traceback would keep a Call and free it on another thread;
- at the end all calls are hung up and freed before the library is destroyed.
"""

import heapq
import ipaddress
import itertools
import logging
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pjsua2 as pj

from pbx.core.causes import Cause
from pbx.core.legs import Ended, LegEvent, LegId, PlayId
from pbx.sip import wire
from pbx.sip.account import Line
from pbx.sip.bounds import Bounds
from pbx.sip.endpoint import Endpoint
from pbx.sip.faults import text_of_error
from pbx.sip.leg import Leg
from pbx.sip.meter import Meter
from pbx.sip.params import Params
from pbx.sip.patch import Patch
from pbx.sip.recording import Recordings
from pbx.sip.settings import EngineSettings
from pbx.sip.wav import WavError

log = logging.getLogger("careline.engine")
Command = tuple[Callable[..., None], LegId | None, tuple[Any, ...]]
COMMANDS_A_TURN = 500
GOODBYE_S = 1.0  # for the answers to our BYEs before the library is destroyed


class Kept(Protocol):
    """A Call object with the call id of the library it stands for."""

    slot: int


class EngineError(Exception):
    """The engine cannot start or stop; the text is a sentence that says what to do."""


class Owner:
    """Everything of the pj thread. Only `opened`, `failure` and `counts` are read by other threads."""

    def __init__(
        self,
        settings: EngineSettings,
        commands: "queue.SimpleQueue[Command]",
        new_leg_id: Callable[[], LegId],
        post: Callable[[list[LegEvent]], None],
    ) -> None:
        self.settings = settings
        self.new_leg_id = new_leg_id
        self.opened = threading.Event()
        self.failure: str | None = None
        self.meter = Meter()
        self.counts = self.meter.counts
        self.legs: dict[LegId, Leg] = {}
        self.slots: dict[int, Kept] = {}  # the living object of each call id of the library
        self._grave: list[Kept] = []
        self.admission = settings.max_calls
        self.incoming_legs = 0
        self._lines: list[Line] = []
        self._commands = commands
        self._post = post
        self._events: list[LegEvent] = []
        self._unstarted: list[LegId] = []
        self._timers: list[tuple[float, int, LegId, Callable[..., None], tuple[Any, ...]]] = []
        self._timer_numbers = itertools.count()
        self._stop_by_s: float | None = None

    # --- life of the thread ------------------------------------------------------------------

    def run(self) -> None:
        """Body of the pj thread."""
        with tempfile.TemporaryDirectory(prefix="careline-engine-") as folder:
            endpoint: Endpoint | None = None
            try:
                endpoint = Endpoint(self.settings)
                self._open(endpoint, Path(folder))
            except (pj.Error, WavError, OSError) as error:
                self.failure = self._opening_failed(error)
                del error
            except Exception:
                self.failure = "The SIP endpoint could not be opened; look at the log."
                log.error("Opening failed\n%s", text_of_error(), extra={"action": "open"})
            if endpoint is not None:
                if self.failure is None:
                    self.opened.set()
                    self._turn_until_stopped(endpoint)
                self._close(endpoint)
            self.opened.set()

    def _open(self, endpoint: Endpoint, folder: Path) -> None:
        endpoint.open()
        s = self.settings
        self.params = Params(s)
        self.bounds = Bounds(self, s)
        self.patch = Patch(self, s, folder)
        self.recordings = Recordings(self)
        # The first one takes incoming calls and makes those a REFER asks for, which go to the edge whatever
        # host they name; the second one makes ours, whose URI already names the edge.
        # Each has half of the media ports, for each walks on its own.
        half = s.rtp_ports // 4 * 2
        ports = range(s.rtp_first, s.rtp_first + 2 * half)
        self._lines = [
            Line(self, endpoint.account_config(10, ports[:half], s.edge)),
            Line(self, endpoint.account_config(0, ports[half:])),
        ]

    def _opening_failed(self, error: Exception) -> str:
        s = self.settings
        if isinstance(error, pj.Error):
            where = f"{s.address} port {s.sip_port}"
            return (
                f"The SIP endpoint on {where} could not be opened: {error.reason}; is another engine running?"
            )
        return f"The engine could not start: {error}"

    def _turn_until_stopped(self, endpoint: Endpoint) -> None:
        steps = (self._run_commands, self._run_timers, self._check_bounds, self._bury, self._flush)
        while True:
            began_s = time.monotonic()
            endpoint.poll()
            for step in steps:
                try:
                    step()
                except Exception:  # a fault of ours in one leg may not stop the others
                    self.callback_failed(step.__name__, None)
            now_s = time.monotonic()
            self.meter.turn(began_s, now_s, len(self.legs))
            if self._stop_by_s is not None and now_s >= self._stop_by_s and not self.recordings.busy:
                return

    def _check_bounds(self) -> None:
        now_s = time.monotonic()
        self.bounds.check(now_s)
        if self.recordings.busy:
            self.recordings.check(now_s)
        if self._unstarted:
            self._check_unstarted()

    def begin_stop(self, within_s: float) -> None:
        """Command: admit nobody, end everybody, leave after their BYEs had a moment to be answered."""
        if self._stop_by_s is not None:
            return
        self.admission = 0
        had_legs = bool(self.legs)
        for leg in list(self.legs.values()):
            leg.finish(Cause.SHUTDOWN, 503)
        self.recordings.close_all()
        self._stop_by_s = time.monotonic() + (min(GOODBYE_S, within_s / 2) if had_legs else 0.0)

    def _close(self, endpoint: Endpoint) -> None:
        """Free every object, then destroy the library."""
        if self.failure is None:
            self._bury()
            self.patch.close()
        self._lines.clear()
        self.slots.clear()
        self._bury()
        endpoint.close(quietly=self.failure is not None)
        self._flush()

    # --- commands ----------------------------------------------------------------------------

    def _run_commands(self) -> None:
        for _ in range(COMMANDS_A_TURN):
            try:
                function, leg_id, arguments = self._commands.get_nowait()
            except queue.Empty:
                return
            try:
                if leg_id is None:
                    function(self, *arguments)
                elif (leg := self.legs.get(leg_id)) is not None:
                    function(leg, *arguments)
                    leg = None
            except Exception:
                self._command_failed(function, leg_id)

    def _command_failed(self, function: Callable[..., None], leg_id: LegId | None) -> None:
        self.counts["command_errors"] += 1
        log.warning(
            "A command failed\n%s",
            text_of_error(),
            extra={"action": "command", "command": getattr(function, "__name__", "?"), "leg": leg_id},
        )

    def set_admission(self, max_calls: int) -> None:
        """Command: bound on incoming legs."""
        self.admission = max_calls if self._stop_by_s is None else 0

    def dial(
        self,
        leg_id: LegId,
        target_uri: str,
        caller_user: str,
        caller_display: str,
        headers: Mapping[str, str],
    ) -> None:
        """Command: make a leg; every failure is its Ended."""
        self.counts["dialled"] += 1
        leg = Leg(self, self._lines[-1], leg_id)
        self.legs[leg_id] = leg
        if self._stop_by_s is not None:
            leg.finish(Cause.SHUTDOWN)
            return
        if not self.can_dial(target_uri, routed=False):
            log.warning("A target names no IP address", extra={"action": "dial", "leg": leg_id})
            leg.finish(Cause.NOT_FOUND)
            return
        prm = self.params.call(caller_user, caller_display, headers)
        self.bounds.dialled(leg_id, time.monotonic())
        try:
            leg.makeCall(target_uri, prm)
        except pj.Error as error:
            log.warning(
                "A call could not be made", extra={"action": "dial", "leg": leg_id, "reason": error.reason}
            )
            if not leg.over:
                leg.finish(Cause.ERROR)
        else:
            if not leg.over:
                self.take_slot(leg, leg.getId())

    def record(self, path: Path, legs: Sequence[LegId]) -> None:
        """Command: see Recordings.start."""
        self.recordings.start(path, legs)

    def stop_record(self, path: Path) -> None:
        """Command: see Recordings.stop."""
        self.recordings.stop(path)

    # --- for legs ----------------------------------------------------------------------------

    def emit(self, event: LegEvent) -> None:
        """Tell the application; events leave together at the end of the turn."""
        self._events.append(event)

    def admit(self, leg: Leg) -> None:
        """Register an incoming leg."""
        self.take_slot(leg, leg.getId())
        self.legs[leg.leg_id] = leg
        self.incoming_legs += 1
        self.bounds.incoming(leg.leg_id, time.monotonic())

    def leg_over(self, leg: Leg, ended: Ended) -> None:
        """Unregister a leg; the object goes to the grave."""
        self.ended(leg)
        if self.legs.pop(leg.leg_id, None) is None:
            return
        if leg.inbound:
            self.incoming_legs -= 1
        if leg.stand_in is not None:  # an INVITE with Replaces that came to nothing
            child = self.legs.pop(leg.stand_in, None)
            if child is not None and not child.announced:
                self.ended(child)
        self.patch.detach(leg)
        if leg.announced:
            self.counts["ended"] += 1
            self.recordings.leg_over(leg, ended)

    def referred_leg(self, parent: Leg) -> Leg:
        """A leg for the call the library makes after a REFER."""
        leg = Leg(self, parent.line, self.new_leg_id())
        self.legs[leg.leg_id] = leg
        self.counts["dialled"] += 1
        self.bounds.dialled(leg.leg_id, time.monotonic())
        self._unstarted.append(leg.leg_id)
        return leg

    def stand_in(self, parent: Leg) -> Leg:
        """A leg that will take the place of `parent` when the INVITE with Replaces succeeds."""
        leg = Leg(self, parent.line, self.new_leg_id(), inbound=False)
        leg.announced = False
        self.legs[leg.leg_id] = leg
        parent.stand_in = leg.leg_id
        return leg

    def _line_of(self, parent: Leg) -> Line:
        return parent.line

    def _check_unstarted(self) -> None:
        """A REFER whose call the library could not make has no callback: its leg ends here."""
        for leg_id in self._unstarted:
            leg = self.legs.get(leg_id)
            if leg is not None and leg.getId() == pj.PJSUA_INVALID_ID:
                leg.finish(Cause.ERROR)
        self._unstarted.clear()

    def can_dial(self, uri: str, *, routed: bool) -> bool:
        """Whether a call to `uri` needs no name lookup of ours: an IP address, or the edge as next hop."""
        if any(ord(c) < 0x20 for c in uri):
            return False
        if routed and self.settings.edge:
            return True
        try:
            ipaddress.ip_address(wire.uri_host(uri).strip("[]"))
        except ValueError:
            return False
        return True

    def leg_of_replaces(self, replaces: str) -> LegId | None:
        """The leg of ours that has the Call-ID named by an escaped Replaces header, or None."""
        call_id = wire.replaced_call_id(replaces)
        for leg_id, leg in self.legs.items():
            if leg.getId() != pj.PJSUA_INVALID_ID and leg.getInfo().callIdString == call_id:
                return leg_id
        return None

    def callback_failed(self, name: str, leg_id: LegId | None) -> None:
        """Log and count the exception being handled, which the library would swallow."""
        self.counts["callback_errors"] += 1
        log.error(
            "A callback failed\n%s",
            text_of_error(),
            extra={"action": "callback", "callback": name, "leg": leg_id},
        )

    def take_slot(self, call: Kept, slot: int) -> None:
        """Note which call id of the library a new object has."""
        call.slot = slot
        self.slots[slot] = call

    def ended(self, call: Kept) -> None:
        """Send an object to the grave, where it outlives the callback that ended it."""
        if self.slots.get(call.slot) is call:
            del self.slots[call.slot]
        self._grave.append(call)

    def _bury(self) -> None:
        """Free ended Call objects, outside of every callback, unless a new call has got their slot."""
        if self._grave:
            self._grave = [call for call in self._grave if call.slot in self.slots]

    # --- time --------------------------------------------------------------------------------

    def later(
        self, after_s: float, leg_id: LegId, function: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        """Call `function(leg, *arguments)` after a while, if the leg still lives."""
        entry = (time.monotonic() + after_s, next(self._timer_numbers), leg_id, function, arguments)
        heapq.heappush(self._timers, entry)

    def play_ends(self, at_s: float, leg_id: LegId, play_id: PlayId) -> None:
        """End a play at a time of the monotonic clock."""
        heapq.heappush(
            self._timers, (at_s, next(self._timer_numbers), leg_id, Owner._play_over, (self, play_id))
        )

    @staticmethod
    def _play_over(leg: Leg, owner: "Owner", play_id: PlayId) -> None:
        owner.patch.end_play(leg, completed=True, play_id=play_id)

    def _run_timers(self) -> None:
        now_s = time.monotonic()
        while self._timers and self._timers[0][0] <= now_s:
            _, _, leg_id, function, arguments = heapq.heappop(self._timers)
            leg = self.legs.get(leg_id)
            if leg is not None:
                try:
                    function(leg, *arguments)
                except Exception:
                    self._command_failed(function, leg_id)

    # --- inside ------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._post(events)
