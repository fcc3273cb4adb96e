"""The head's servos under MuJoCo, in steps of 2 ms up to the time that is asked for.

Whoever calls `advance` moves it: the robot's caller on a test's clock (deploy.robots.sim), a thread of its own in real
time (deploy.head.pacer). A command waits for its own time, so that both see the same motion, however late a step runs.
`command` and `reading` may come from any thread and never wait for a step; mj_step gives Python's lock away.
Shapes: C channels.
"""

import importlib
import threading
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.head.model import STEP_S, build_xml

Joints = NDArray[np.float64]


class PhysicsBrokenError(ArithmeticError):
    """The physics left what numbers can say; MuJoCo has set it back to its start."""


class Physics:
    """One head with servos this late; its own time begins at 0 with the first `advance`."""

    def __init__(self, dead_time_s: float, time_constant_s: float) -> None:
        self._mujoco: Any = importlib.import_module("mujoco")
        self._time_constant_s = time_constant_s
        self._model = self._model_of(dead_time_s)
        self._data: Any = self._mujoco.MjData(self._model)
        self._start_s: float | None = None
        self._told: deque[tuple[float, Joints]] = deque()
        self._stepping = threading.Lock()
        self._read: tuple[float, Joints] = (0.0, self._data.sensordata.copy())

    def _model_of(self, dead_time_s: float) -> Any:
        return self._mujoco.MjModel.from_xml_string(build_xml(dead_time_s, self._time_constant_s))

    def command(self, values: Joints, at_s: float) -> None:
        """Where the servos shall go [C], in metres and radians, from `at_s` on or from the next step when that is past.

        Commands come in the order of their times.
        """
        self._told.append((at_s, values))

    def advance(self, until_s: float) -> None:
        """Make all steps due until then, each command at its time; PhysicsBrokenError."""
        with self._stepping:
            if self._start_s is None:
                self._start_s = until_s
            while self._told and self._told[0][0] <= until_s:
                at_s, values = self._told.popleft()
                self._run(at_s)
                self._data.ctrl[:] = values
            self._run(until_s)

    def _run(self, until_s: float) -> None:
        assert self._start_s is not None
        begin_s = self._data.time
        steps = int((until_s - self._start_s - begin_s) / STEP_S + 1e-6)
        if steps > 0:
            self._mujoco.mj_step(self._model, self._data, steps)
            if self._data.time < begin_s + (steps - 0.5) * STEP_S:
                raise PhysicsBrokenError(f"it became unstable {begin_s:.3f} s after its start")
            self._read = (self._data.time - STEP_S, self._data.sensordata.copy())  # a step's sensors are of its begin

    def reading(self) -> tuple[float, Joints]:
        """The joint sensors [C], and the time that they are of, on the clock of `advance`."""
        assert self._start_s is not None, "nobody has begun"
        at_s, joints = self._read
        return self._start_s + at_s, joints

    def be_late(self, dead_time_s: float) -> None:
        """Change the servos' dead time while they run.

        Servos that become later stand on what they were acting on until their commands catch up; nothing is acted on
        twice.
        """
        model = self._model_of(dead_time_s)
        data = self._mujoco.MjData(model)
        with self._stepping:
            old_model, old = self._model, self._data
            data.qpos[:], data.qvel[:], data.act[:], data.ctrl[:] = old.qpos, old.qvel, old.act, old.ctrl
            data.time = old.time
            for servo in range(model.nu):
                n_kept = int(model.actuator_history[servo, 0])
                given_at_s = old.time - STEP_S * np.arange(n_kept, 0, -1)
                acted_on_s = np.maximum(given_at_s + old_model.actuator_delay[servo], old.time)
                kept = [self._mujoco.mj_readCtrl(old_model, old, servo, t, np.zeros((1, 1)), 0)[0] for t in acted_on_s]
                self._mujoco.mj_initCtrlHistory(model, data, servo, given_at_s[:, None], np.array(kept)[:, None])
            self._mujoco.mj_forward(model, data)  # the sensors speak before the next step, too
            self._model, self._data = model, data
            self._read = (data.time, data.sensordata.copy())
