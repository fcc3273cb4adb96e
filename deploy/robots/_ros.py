"""What both ROS wires share: which channels travel in which message, the topics, and joint states coming back.

A channel called AU1…AU98 is an action unit and travels in hri_msgs/FacialActionUnits (`intensity[code]`, 0…1); any
other name is a joint (radians or metres) and travels in trajectory_msgs/JointTrajectory. A robot whose channels are all
joints can report them through sensor_msgs/JointState.
"""

import re
from dataclasses import dataclass

import numpy as np

from deploy.calibration import Calibration
from deploy.robots import Feedback

CODES = 99
"""Length of the message's arrays; the index is the FACS code."""
OPTIONS = ("facs", "trajectory", "states")
FIRST_STATE_S = 1.0
"""How long `open` waits for the first joint states: a robot whose pose is unknown would be taken to be at neutral."""
STALE_S = 0.5
"""Joint states older than this say nothing about now."""
_UNIT = re.compile(r"AU([1-9]|[1-8]\d|9[0-8])")


@dataclass(frozen=True)
class Topics:
    """Names of the topics, each as ROS writes them."""

    facs: str = "/robot_face/facs"
    trajectory: str = "/head_controller/joint_trajectory"
    states: str = "/joint_states"

    @classmethod
    def of(cls, robot: str, options: dict[str, str]) -> "Topics":
        """From the address; a name that ROS would not take is refused."""
        topics = cls(**{k: v for k, v in options.items() if k in OPTIONS})
        for name in (topics.facs, topics.trajectory, topics.states):
            if not re.fullmatch(r"(/[A-Za-z_]\w*)+", name, re.ASCII):
                raise ValueError(f"robot {robot}: wanted a topic such as /robot_face/facs, got {name!r}")
        return topics


class Split:
    """Which channels are units and which are joints."""

    def __init__(self, calibration: Calibration) -> None:
        found = {c: _UNIT.fullmatch(name) for c, name in enumerate(calibration.names)}
        self.units = [(c, int(m[1])) for c, m in found.items() if m]
        """(channel, FACS code) of each."""
        self.joints = [(c, calibration.names[c]) for c, m in found.items() if not m]
        """(channel, joint's name) of each."""

    def intensities(self, values: np.ndarray) -> tuple[list[float], list[float]]:
        """`intensity` and `confidence` by FACS code; confidence is 1 for what we command, 0 for all else."""
        intensity, confidence = [0.0] * CODES, [0.0] * CODES
        for c, code in self.units:
            intensity[code], confidence[code] = float(values[c]), 1.0
        return intensity, confidence


class States:
    """The newest position of every joint, as far as it has been heard."""

    def __init__(self, calibration: Calibration, split: Split) -> None:
        self._calibration = calibration
        self._wanted = [name for _, name in split.joints] if not split.units else []
        self._heard: dict[str, tuple[float, float]] = {}

    @property
    def wanted(self) -> bool:
        """Whether every channel is a joint that could report."""
        return bool(self._wanted)

    def hear(self, names: list[str], positions: list[float], at_s: float) -> None:
        """A joint-state message that describes the time `at_s`."""
        self._heard.update({n: (at_s, float(p)) for n, p in zip(names, positions, strict=False) if n in self._wanted})

    def forget(self) -> None:
        """What was heard before a new connection counts no more."""
        self._heard = {}

    def feedback(self, now_s: float, heard_now_s: float) -> Feedback | None:
        """All joints, if each was heard lately and is a number; `heard_now_s` is now on the clock of `hear`."""
        if not self._wanted or len(self._heard) < len(self._wanted):
            return None
        ages = [heard_now_s - at for at, _ in self._heard.values()]
        if max(ages) > STALE_S:
            return None
        joints = np.array([self._heard[name][1] for name in self._wanted])
        if not np.isfinite(joints).all():
            return None
        return Feedback(now_s - max(ages), self._calibration.shares_of(joints), joints)
