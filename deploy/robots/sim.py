"""The simulated head: MuJoCo physics at 500 Hz with real servo dead time and inertia, read back through joint sensors.

Physics runs up to the time it is asked for. Live, a thread of its own asks a hundred times a second; a test with a
fake clock asks itself. `sim:live` (what `--robot` alone means in deploy.run) starts the thread with `open`.
"""

import importlib
import threading
import time
from typing import Any

import numpy as np

from deploy.calibration import Calibration
from deploy.head.model import CHANNELS, NAMES, STEP_S, build_xml
from deploy.plan import Command
from deploy.robots import Feedback


class SimRobot:
    """The head of `deploy.head` on MuJoCo; `live` keeps physics up with the monotonic clock."""

    def __init__(self, calibration: Calibration, *, live: bool = False) -> None:
        if calibration.names != NAMES:
            odd = sorted(set(calibration.names) ^ set(NAMES)) or ["their order"]
            raise ValueError(f"calibration {calibration.robot}: the head's channels differ in {', '.join(odd)}")
        ends = [(c.low, c.high) for c in calibration.channels.values()]
        if ends != [(c.low, c.high) for c in CHANNELS]:
            raise ValueError(f"calibration {calibration.robot}: ends of travel differ from the head's (deploy/head)")
        self.calibration = calibration
        self._live = live
        self._lock = threading.Lock()
        self._physics: Any = None
        self._thread: threading.Thread | None = None
        self._running = False
        self._start_s: float | None = None

    def open(self) -> None:
        """Build the model; physics starts with the first command, or now when live."""
        mujoco: Any = importlib.import_module("mujoco")
        self._mujoco = mujoco
        model = mujoco.MjModel.from_xml_string(
            build_xml(self.calibration.dead_time_s, self.calibration.time_constant_s)
        )
        self._physics, self._start_s = (model, mujoco.MjData(model)), None
        if self._live and self._thread is None:
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

    def be_late(self, dead_time_s: float) -> None:
        """Change the servos' dead time while they run: what wear, cold or another robot would do.

        Servos that become later stand on what they were acting on until their commands catch up; nothing is acted on
        twice.
        """
        with self._lock:
            old_model, old = self._physics
            model = self._mujoco.MjModel.from_xml_string(build_xml(dead_time_s, self.calibration.time_constant_s))
            data = self._mujoco.MjData(model)
            data.qpos[:], data.qvel[:], data.act[:], data.ctrl[:] = old.qpos, old.qvel, old.act, old.ctrl
            data.time = old.time
            for servo in range(model.nu):
                n_kept = int(model.actuator_history[servo, 0])
                given_at_s = old.time - STEP_S * np.arange(n_kept, 0, -1)
                acted_on_s = np.maximum(given_at_s + old_model.actuator_delay[servo], old.time)
                kept = [self._mujoco.mj_readCtrl(old_model, old, servo, t, np.zeros((1, 1)), 0)[0] for t in acted_on_s]
                self._mujoco.mj_initCtrlHistory(model, data, servo, given_at_s[:, None], np.array(kept)[:, None])
            self._mujoco.mj_forward(model, data)  # the sensors speak before the next step, too
            self._physics = (model, data)

    def send(self, command: Command, now_s: float) -> Command:
        """Command the servos."""
        self.advance(now_s)
        with self._lock:
            self._physics[1].ctrl[:] = self.calibration.device_values(command.shares)
        return command

    def feedback(self, now_s: float) -> Feedback:
        """Joint sensors now."""
        self.advance(now_s)
        with self._lock:
            joints = self._physics[1].sensordata.copy()
        return Feedback(now_s, self.calibration.shares_of(joints), joints)

    def release(self) -> None:
        """The head rests where it is."""

    def close(self) -> None:
        """Stop physics."""
        self._running = False
        if self._thread is not None:
            self._thread.join(timeout=1.0)
            self._thread = None


def make(calibration: Calibration, address: str) -> SimRobot:
    """Entry point of `deploy.robots.load`; the address is `live` or nothing."""
    if address not in ("", "live"):
        raise ValueError(f"robot sim takes no address but `live`, got {address!r}")
    return SimRobot(calibration, live=address == "live")
