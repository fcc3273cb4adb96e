"""What the robot was told and what it did, kept for the report and the video.

A robot may round a command or hold it back until the next: limits are judged on what they allowed of what went out, in
`paths`, and the rounding is a figure of its own.
Shapes: M moments (one per command), C channels, A = 17 action units.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from deploy.motion.states import Moment, State

CUT: tuple[State, ...] = ("lost", "released")
"""What comes after these begins from wherever the robot is then."""


class Recorder:
    """Keeps the newest `keep` moments; `add` is the controller's watcher and runs in its thread."""

    def __init__(self, keep: int) -> None:
        self.moments: deque[Moment] = deque(maxlen=keep)
        self.began_s: float | None = None
        """Time of the first moment ever, on the controller's clock."""

    def add(self, moment: Moment) -> None:
        """Remember one command."""
        if self.began_s is None:
            self.began_s = moment.now_s
        self.moments.append(moment)

    def sent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """When [M], seconds, and what [M, C] was sent."""
        moments = tuple(self.moments)
        return np.array([m.now_s for m in moments]), np.array([m.sent for m in moments])

    def paths(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """When [K], and what [K, C] the limits allowed of what went out; cut where the robot was lost or let go."""
        parts: list[list[Moment]] = [[]]
        for moment in tuple(self.moments):
            if moment.state in CUT and parts[-1]:
                parts.append([])
            elif moment.state not in CUT and moment.told is not None:
                parts[-1].append(moment)
        return [(np.array([m.now_s for m in part]), np.array([m.told for m in part])) for part in parts if part]

    def rounding(self) -> float:
        """By how much of a travel the robot changed a command at most, to what it can do."""
        changes = [np.abs(m.sent - m.told).max(initial=0.0) for m in tuple(self.moments) if m.told is not None]
        return float(max(changes, default=0.0))

    def joints_at(self, times_s: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Sensed joints [N, C] at `times_s` [N], interpolated; None where the robot has no sensors."""
        felt = [m.sensed for m in tuple(self.moments) if m.sensed is not None]
        if not felt:
            return None
        when, joints = np.array([f.time_s for f in felt]), np.array([f.joints for f in felt])
        return np.stack([np.interp(times_s, when, column) for column in joints.T], axis=1)


def fastest(
    when_s: NDArray[np.float64], shares: NDArray[np.float64], limit: NDArray[np.float64]
) -> tuple[float, float]:
    """Largest speed of any channel in shares per second, and as a part of that channel's own limit [C]."""
    if len(when_s) < 2 or not shares.shape[1]:
        return 0.0, 0.0
    speed = np.abs(np.diff(shares, axis=0)) / np.maximum(np.diff(when_s), 1e-9)[:, None]
    return float(speed.max()), float((speed / limit).max())
