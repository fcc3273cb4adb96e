"""The simulated head: MuJoCo physics at 500 Hz with real servo dead time and inertia, read back through joint sensors.

Physics runs up to the time it is asked for, by every `send` and `feedback`: the controller's ticks move it, in real
time or on a test's clock alike. It has no thread and no address; `--robot` alone means `sim` in deploy.run.
"""

import importlib
from typing import Any

import numpy as np

from deploy.calibration import Calibration
from deploy.head.model import CHANNELS, NAMES, STEP_S, build_xml
from deploy.plan import Command
from deploy.robots import Feedback


class SimRobot:
    """The head of `deploy.head` on MuJoCo."""

    def __init__(self, calibration: Calibration) -> None:
        if calibration.names != NAMES:
            odd = sorted(set(calibration.names) ^ set(NAMES)) or ["their order"]
            raise ValueError(f"calibration {calibration.robot}: the head's channels differ in {', '.join(odd)}")
        ends = [(c.low, c.high) for c in calibration.channels.values()]
        if ends != [(c.low, c.high) for c in CHANNELS]:
            raise ValueError(f"calibration {calibration.robot}: ends of travel differ from the head's (deploy/head)")
        self.calibration = calibration
        self._physics: Any = None
        self._start_s: float | None = None

    def open(self) -> None:
        """Build the model; physics starts when it is first asked for."""
        mujoco: Any = importlib.import_module("mujoco")
        self._mujoco = mujoco
        model = mujoco.MjModel.from_xml_string(
            build_xml(self.calibration.dead_time_s, self.calibration.time_constant_s)
        )
        self._physics, self._start_s = (model, mujoco.MjData(model)), None

    def advance(self, now_s: float) -> None:
        """Run physics up to `now_s`."""
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
        self._physics[1].ctrl[:] = self.calibration.device_values(command.shares)
        return command

    def feedback(self, now_s: float) -> Feedback:
        """Joint sensors now."""
        self.advance(now_s)
        joints = self._physics[1].sensordata.copy()
        return Feedback(now_s, self.calibration.shares_of(joints), joints)

    def release(self) -> None:
        """The head rests where it is."""

    def close(self) -> None:
        """Nothing to give back."""


def make(calibration: Calibration, address: str) -> SimRobot:
    """Entry point of `deploy.robots.load`."""
    if address:
        raise ValueError(f"robot sim takes no address, got {address!r}")
    return SimRobot(calibration)
