"""The beat that the motion follows: one thread, one tick after another, whatever the loop, its camera or engine do.

Deadlines are absolute; a tick that comes too late is skipped and counted, never made up for. Plans, stops and questions
come from other threads, and never wait for the robot's wire. When anything fails in here the robot is sent home, let
go, and the error is kept for whoever joins. What a person beside the robot must know is logged here, whoever caused it:
a stop, and a robot that may hold on although it was to let go.
"""

import dataclasses
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from deploy.motion.controller import Controller
from deploy.motion.states import Status
from deploy.plan import AUPlan, Command
from deploy.robots import NotReleased, Robot
from deploy.safety import way_home
from deploy.safety.black_box import BlackBox
from dyad.clock import Clock

HOME_S = 1.5
PATIENCE_S = 7.0
"""Longer than both ways home, and the thread is taken for stuck in the robot's wire; to open one anew may take 6 s."""
STALE_S = 0.5
"""A heart that has not beaten for so long, or for two and a half of its periods, is not well."""
TIMED_TICKS = 3600
LEFT_ALONE = "the robot is lost: neither sent home nor let go, it may hold on; cut its power before you reach in"

_LOG = logging.getLogger("deploy")


class Heart:
    """Calls a controller's tick at its robot's rate, in a thread (`start`) or as far as it is asked (`catch_up`)."""

    def __init__(self, controller: Controller, robot: Robot, clock: Clock, *, box: BlackBox | None = None) -> None:
        self._controller, self._robot, self._clock, self._box = controller, robot, clock, box
        self._period_s = 1 / robot.calibration.rate_hz
        self._due_s = 0.0
        self._last: deque[tuple[float, Command]] = deque(maxlen=3)
        self._ending = threading.Event()
        self._end_reason, self._home_s = "", HOME_S
        self._thread: threading.Thread | None = None
        self._ended = self._let_go = self._silence_noted = False
        self.skipped_ticks = 0
        """Ticks that came too late."""
        self.tick_ms: deque[float] = deque(maxlen=TIMED_TICKS)
        """How long each of the last ticks took."""
        self.beat_at_s = 0.0
        """When the last one began."""
        self.error: BaseException | None = None
        """What ended the beat; None while it is well."""
        self.came_home = False
        self.doubt: str | None = None
        """What may still be on although the robot was to let go; None when nothing is."""
        self.how_to_arm = "end this process and start it again"
        """What undoes a stop; whoever serves a better way says so here."""

    def start(self, *, thread: bool = True) -> None:
        """Begin with an open robot; without a thread of its own whoever owns the clock calls `catch_up`."""
        self._due_s = self.beat_at_s = now_s = self._clock.now_s()
        self._controller.start(now_s)
        if thread:
            beating = threading.Thread(target=self._run, name="heart", daemon=True)
            beating.start()
            self._thread = beating

    @property
    def alive(self) -> bool:
        """Whether it has neither ended nor failed; it may hang in the robot's wire all the same."""
        return not self._ended and self.error is None

    @property
    def silent_s(self) -> float:
        """Since the last beat began."""
        return self._clock.now_s() - self.beat_at_s

    @property
    def beats(self) -> bool:
        """Whether it is alive and has beaten just now; any thread."""
        return self.alive and self.silent_s <= max(STALE_S, 2.5 * self._period_s)

    @property
    def stuck(self) -> bool:
        """Whether it hangs for longer than any wire may take."""
        return self.silent_s > PATIENCE_S

    def note_silence(self) -> None:
        """A heart that hangs is a fault, once for each silence; for threads that do not hang with it.

        While a robot is opened anew it may be silent: that the robot was lost has been said.
        """
        silent = self.alive and not self.beats and self.status().state not in ("lost", "released")
        if silent and not self._silence_noted:
            self.fault("the heart does not beat: the robot's wire hangs")
        self._silence_noted = silent

    def offer(self, plan: AUPlan) -> None:
        """A plan for the ticks to come; any thread."""
        now_s = self._clock.now_s()
        verdict = self._controller.offer(plan, now_s)
        if self._box is not None:
            self._box.judge(plan.seq, verdict, now_s)

    def stop(self, reason: str) -> None:
        """Emergency stop; any thread."""
        before = self.status().stop_reason
        self._controller.stop(reason, self._clock.now_s())
        if before is None:
            what = LEFT_ALONE if self.status().state == "lost" else "the face goes home and is let go"
            _LOG.warning("stopped: %s; %s; to arm it: %s", reason, what, self.how_to_arm)
            self.fault(f"emergency stop: {reason}")

    def rest(self, why: str) -> None:
        """No plans until the next one, on purpose, so that the silence is no fault; any thread."""
        if self._box is not None:
            self._box.rest(why)

    def fault(self, reason: str) -> None:
        """Something went wrong, here or in the loop: the black box is written; any thread."""
        if self._box is not None:
            self._box.fault(reason)

    def rearm(self) -> None:
        """Undo a stop; any thread."""
        self._controller.rearm(self._clock.now_s())
        if self._box is not None:
            self._box.note("armed", "armed again")

    def status(self) -> Status:
        """How the controller does now; any thread."""
        said = self._controller.status(self._clock.now_s())
        return said if self.doubt is None else dataclasses.replace(said, state="lost", doubt=self.doubt)

    def report(self) -> dict[str, Any]:
        """The same as plain data."""
        return self.status().as_dict()

    def catch_up(self, now_s: float) -> None:
        """All ticks due until `now_s`, each at its own time; for a clock that only moves when it is told to."""
        while self._due_s <= now_s:
            self._beat(self._due_s)
            self._due_s = self._controller.rhythm.after(self._due_s)

    def stop_and_home(self, timeout_s: float = HOME_S, reason: str = "the run has ended") -> bool:
        """End the beat: home within the limits, let go. Whether it arrived; raises what had broken the beat before."""
        self._end_reason, self._home_s = reason, timeout_s
        self._ending.set()
        if self._thread is None:
            self._end()
        else:
            self._thread.join(timeout=timeout_s + way_home.LONGEST_S + PATIENCE_S)
            if self._thread.is_alive():
                raise RuntimeError("the robot's wire takes no answer; cut its power, and see deploy/robots")
        if self.error is not None:
            raise self.error
        return self.came_home

    def _run(self) -> None:
        self._guard(self._beat_on)
        self._end()

    def _guard(self, step: Callable[[], None]) -> None:
        """The outermost guard of the robot: home comes first, then the error goes to whoever joins."""
        try:
            step()
        except BaseException as error:  # noqa: BLE001
            self.error = self.error or error
            self.fault(f"{type(error).__name__}: {error}")

    def _beat_on(self) -> None:
        while not self._ending.is_set():
            self._wait()
            self._beat(self._clock.now_s())

    def _wait(self) -> None:
        """Sleep to the next deadline; those that have passed are skipped."""
        late_s = self._clock.now_s() - self._due_s
        if late_s > self._period_s:
            skipped = math.ceil(late_s / self._period_s)
            self.skipped_ticks += skipped
            self._due_s += skipped * self._period_s
        self._clock.sleep_until(self._due_s)
        self._due_s = self._controller.rhythm.after(self._due_s)

    def _beat(self, now_s: float) -> None:
        began = time.perf_counter()
        self.beat_at_s = now_s
        self._last.append((now_s, self._controller.tick(now_s)))
        self._wonder(self._controller.doubt)
        self.tick_ms.append(1000 * (time.perf_counter() - began))

    def _end(self) -> None:
        """Home by the controller; where that fails, without it; then let go. Once."""
        if self._ended:
            return
        if self.error is None:
            self._guard(self._go_home)
        if self.error is not None:
            self._guard(self._go_home_alone)
        if not self._let_go:
            self._guard(self._release)
        self._ended = True

    def _release(self) -> None:
        try:
            self._robot.release()
        except NotReleased as doubt:
            self._wonder(str(doubt))

    def _wonder(self, doubt: str | None) -> None:
        """Say once what may still be on."""
        if doubt is not None and doubt != self.doubt:
            _LOG.error("%s", doubt)
            self.fault(doubt)
        self.doubt = doubt

    def _go_home_alone(self) -> None:
        self.came_home = way_home.go(self._robot, tuple(self._last), self._clock)

    def _go_home(self) -> None:
        """The controller's own way, tick by tick, until it has let go or the time is over."""
        end_s = self._clock.now_s() + self._home_s
        self._controller.stop(self._end_reason, self._clock.now_s())
        while self._clock.now_s() < end_s and not self._let_go:
            self._wait()
            self._beat(self._clock.now_s())
            self._let_go = self.doubt is not None or self.status().state == "released"
        self.came_home = self._let_go or self._controller.at_rest()  # it lets go, or tries to, only there
