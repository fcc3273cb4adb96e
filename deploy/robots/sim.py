"""The simulated head: MuJoCo physics at 500 Hz with real servo dead time and inertia, read back through joint sensors.

Physics runs up to the time it is asked for. Live, a thread of its own asks a hundred times a second; a test with a
fake clock asks itself.
"""

import importlib
import threading
import time
from typing import Any

import numpy as np

from deploy.calibration import Calibration
from deploy.head.model import CHANNELS, NAMES, STEP_S, build_xml
from deploy.plan import AUPlan
from deploy.robots import Feedback


class SimRobot:
    """The head of `deploy.head` on MuJoCo."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self._weights = calibration.weights(NAMES)
        self._commanded = np.zeros(len(NAMES))
        self._low = np.array([c.low for c in CHANNELS])
        self._high = np.array([c.high for c in CHANNELS])
        self._lock = threading.Lock()
        self._physics: Any = None
        self._thread: threading.Thread | None = None
        self._running = False
        self._start_s: float | None = None

    def open(self) -> None:
        """Build the model; physics starts with the first command or `run_live`."""
        mujoco: Any = importlib.import_module("mujoco")
        self._mujoco = mujoco
        model = mujoco.MjModel.from_xml_string(
            build_xml(self.calibration.dead_time_s, self.calibration.time_constant_s)
        )
        self._physics = (model, mujoco.MjData(model))

    def run_live(self) -> None:
        """Let a thread of its own keep physics up with the monotonic clock."""
        self._running = True
        self._thread = threading.Thread(target=self._keep_up, name="physics", daemon=True)
        self._thread.start()

    def _keep_up(self) -> None:
        while self._running:
            self.advance(time.monotonic())
            time.sleep(0.01)

    def advance(self, now_s: float) -> None:
        """Run physics up to `now_s`."""
        with self._lock:
            if self._start_s is None:
                self._start_s = now_s
            model, data = self._physics
            steps = int((now_s - self._start_s - data.time) / STEP_S + 1e-6)
            if steps > 0:
                self._mujoco.mj_step(model, data, steps)

    def send(self, plan: AUPlan, now_s: float) -> AUPlan:
        """Command the first row of the plan; the calibration turns units into servo travel."""
        self.advance(now_s)
        shares = self.calibration.mix(plan.au[0], self._weights, NAMES)
        self._commanded = shares
        with self._lock:
            self._physics[1].ctrl[:] = np.where(shares >= 0, shares * self._high, -shares * self._low)
        return plan

    def feedback(self, now_s: float) -> Feedback:
        """Joint sensors now."""
        self.advance(now_s)
        with self._lock:
            joints = self._physics[1].sensordata.copy()
        shares = np.where(joints >= 0, joints / self._high, -joints / self._low)
        return Feedback(now_s, joints, shares, self._commanded)

    def neutral(self, now_s: float) -> None:
        """Command the neutral face."""
        self.advance(now_s)
        self._commanded = np.zeros(len(NAMES))
        with self._lock:
            self._physics[1].ctrl[:] = 0

    def close(self) -> None:
        """Stop physics."""
        self._running = False
        if self._thread is not None:
            self._thread.join(timeout=1.0)
            self._thread = None


def make(calibration: Calibration) -> SimRobot:
    """Entry point of `deploy.robots.load`."""
    return SimRobot(calibration)
