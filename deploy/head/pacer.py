"""The thread in which the head's physics lives in real time: 500 steps a second, whether or not anyone talks to it.

Deadlines are absolute. A step that comes late is made all the same, for a head does not skip time: as many as are due,
in batches short enough that an end does not wait, and counted. What breaks in here ends the thread and is kept for
whoever asks next.
"""

import threading

from deploy.head.model import STEP_S
from deploy.head.physics import Physics
from dyad.clock import Clock

BATCH_S = 0.05
"""At most so much is made up for at a time; about a millisecond's work."""


class Pacer:
    """Advances one head by its clock, from the moment that it is made until `end`."""

    def __init__(self, physics: Physics, clock: Clock) -> None:
        self._physics, self._clock = physics, clock
        self._ending = threading.Event()
        self.steps = 0
        """Deadlines so far."""
        self.late_steps = 0
        """Of these, met a step's length late or more."""
        self.worst_late_s = 0.0
        self.error: BaseException | None = None
        """What ended it; None while it is well."""
        self._reached_s = clock.now_s()
        physics.advance(self._reached_s)
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def ask_to_end(self) -> None:
        """End before the next step, without waiting for that; any thread."""
        self._ending.set()

    def end(self) -> None:
        """End it; it has ended when this returns. Also when the interpreter exits: it would be caught inside a step."""
        self.ask_to_end()
        if threading.current_thread() is not self._thread:  # where the last trace of a robot may be swept up
            self._thread.join()

    def _run(self) -> None:
        try:
            self._keep_pace()
        except BaseException as error:  # noqa: BLE001  the thread's outermost guard: the robot's caller is told
            self.error = error

    def _keep_pace(self) -> None:
        due_s = self._reached_s
        while not self._ending.is_set():
            due_s += STEP_S
            self._clock.sleep_until(due_s)
            now_s = self._clock.now_s()
            late = max(int((now_s - due_s) / STEP_S + 1e-6), 0)
            due_s += late * STEP_S
            self.steps += 1 + late
            self.late_steps += late
            self.worst_late_s = max(self.worst_late_s, now_s - due_s + late * STEP_S)
            self._catch_up(now_s)

    def _catch_up(self, now_s: float) -> None:
        while self._reached_s < now_s and not self._ending.is_set():
            self._reached_s = min(now_s, self._reached_s + BATCH_S)
            self._physics.advance(self._reached_s)
