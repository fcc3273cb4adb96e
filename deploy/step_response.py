"""How late and how fast a motor is, from what it was told and what its own sensor saw.

A position servo is modelled as a dead time, a first-order lag and a critically damped second-order motor, and all
are fitted together by least squares: the moment at which a curve leaves its rest says little, since a motor starts
softly and a sensor is noisy. A coarse grid finds the valleys, damped Gauss-Newton steps their floor.
Shapes: N commands and M sensor readings of one channel, K time grid.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.floating[Any]]
GRID_S = 0.0005
LONGEST_DEAD_S = 0.5
COARSE_S = 0.004
LAGS_S = np.geomspace(0.002, 0.25, 8)
MOTORS_S = np.geomspace(0.002, 0.1, 7)
"""First-order time constants, and 1/ω of the motor, tried first."""
STEPS = 30
NUDGE, LONGEST_STEP = np.array([0.01, 0.01, 0.001]), np.array([0.7, 0.7, 0.02])
BOUNDS = (np.array([np.log(5e-4), np.log(5e-4), 0.0]), np.array([0.0, 0.0, LONGEST_DEAD_S]))
"""Of logarithm of lag, logarithm of motor, dead time."""
LEAST_MOTION = 0.02
"""A sensor that moved by less of its travel saw nothing."""


@dataclass(frozen=True)
class Response:
    """One channel's answer to commands."""

    dead_time_s: float
    """From a command until the motor begins to move."""
    lag_s: float
    """Mean delay of the motor after that: what one first-order time constant would have to be."""
    rise_s: float
    """From 10 to 90 % of a step."""
    gain: float
    """Sensed way per commanded way."""
    agreement: float
    """Share of the sensed movement that the model explains, at most 1."""


def fit(told_s: Curve, told: Curve, seen_s: Curve, seen: Curve) -> Response | None:
    """Fit one channel; `told` [N] holds from its time until the next, `seen` [M] are samples. None: nothing moved."""
    if np.ptp(seen) < LEAST_MOTION or np.ptp(told) < LEAST_MOTION:
        return None
    grid_s = np.arange(told_s[0], max(told_s[-1], seen_s[-1]), GRID_S)
    held = told[np.searchsorted(told_s, grid_s, side="right").clip(1) - 1] - told[0]
    search = _Search(held, seen_s - told_s[0], seen)
    left, lag_s, motor_s, dead_s = min(search.refine(start) for start in search.coarse())
    gain, _ = search.residual(lag_s, motor_s, dead_s)
    agreement = 1 - left / float(((seen - seen.mean()) ** 2).sum())
    return Response(dead_s, lag_s + 2 * motor_s, rise_s(lag_s, motor_s), gain, agreement)


class _Search:
    """Compares the model with one channel's readings; all curves begin at rest."""

    def __init__(self, held: Curve, seen_s: Curve, seen: Curve) -> None:
        self._size = 2 ** int(np.ceil(np.log2(2 * len(held))))
        self._held = np.fft.rfft(held, self._size)
        self._length, self._seen_s, self._seen = len(held), seen_s, seen - seen.mean()

    def _model(self, lag_s: float, motor_s: float) -> Curve:
        """[K] what a sensor would see without dead time."""
        kernels = np.fft.rfft(_lag(lag_s, self._length), self._size) * np.fft.rfft(
            _motor(motor_s, self._length), self._size
        )
        return np.fft.irfft(self._held * kernels, self._size)[: self._length]

    def residual(self, lag_s: float, motor_s: float, dead_s: float) -> tuple[float, Curve]:
        """The gain that fits best, and what [M] the model then leaves unexplained."""
        grid_s = GRID_S * (np.arange(self._length) + 1.5)  # a step each for two kernels, less half a step for the hold
        values = np.interp(self._seen_s - dead_s, grid_s, self._model(lag_s, motor_s))
        values -= values.mean()
        gain = float(values @ self._seen) / max(float(values @ values), 1e-12)
        return gain, self._seen - gain * values

    def coarse(self) -> list[Curve]:
        """[3] lag, motor and dead time, the best of a grid: one where the lag is the slower part, one where the motor.

        The two are valleys of their own, and the deeper one shows only on its floor.
        """
        best = {True: -1.0, False: -1.0}
        found: dict[bool, Curve] = {True: np.zeros(3), False: np.zeros(3)}
        dead = np.arange(0, LONGEST_DEAD_S, COARSE_S)
        at = np.rint((self._seen_s - dead[:, None]) / GRID_S).astype(int)
        for lag_s in LAGS_S:
            for motor_s in MOTORS_S:
                values = np.where(at > 0, self._model(lag_s, motor_s)[at.clip(0, self._length - 1)], 0.0)
                values -= values.mean(axis=1, keepdims=True)
                together = (values @ self._seen) / np.sqrt(np.maximum((values**2).sum(axis=1), 1e-12))
                valley = bool(lag_s > motor_s)
                if together.max() > best[valley]:
                    best[valley] = float(together.max())
                    found[valley] = np.array([lag_s, motor_s, dead[together.argmax()]])
        return list(found.values())

    def refine(self, start: Curve) -> tuple[float, float, float, float]:
        """What is left of least squares near `start` [3], with lag, motor and dead time; damped Gauss-Newton steps."""
        x, damping = np.array([np.log(start[0]), np.log(start[1]), start[2]]), 1e-2
        rest = self._rest(x)
        for _ in range(STEPS):
            slope = np.stack([(self._rest(x + d) - rest) / d.sum() for d in np.diag(NUDGE)], axis=1)
            normal = slope.T @ slope
            step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), slope.T @ rest)
            tried = np.clip(x + np.clip(step, -LONGEST_STEP, LONGEST_STEP), *BOUNDS)
            after = self._rest(tried)
            better = after @ after < rest @ rest
            x, rest, damping = (tried, after, damping / 4) if better else (x, rest, damping * 8)
            if damping > 1e6:
                break
        return float(rest @ rest), float(np.exp(x[0])), float(np.exp(x[1])), float(x[2])

    def _rest(self, x: Curve) -> Curve:
        return self.residual(float(np.exp(x[0])), float(np.exp(x[1])), float(x[2]))[1]


def _lag(lag_s: float, length: int) -> Curve:
    """[K] answer of a first-order lag to a pulse of one grid step."""
    return -np.diff(np.exp(-np.arange(length + 1) * GRID_S / lag_s))


def _motor(motor_s: float, length: int) -> Curve:
    """[K] answer of a critically damped motor to a pulse of one grid step."""
    turns = np.arange(length + 1) * GRID_S / motor_s
    return -np.diff((1 + turns) * np.exp(-turns))


def rise_s(lag_s: float, motor_s: float) -> float:
    """From 10 to 90 % of the model's answer to a step."""
    length = int(8 * (lag_s + 2 * motor_s) / GRID_S) + 10
    step = np.cumsum(np.convolve(_lag(lag_s, length), _motor(motor_s, length))[:length])
    low, high = np.searchsorted(step, (0.1, 0.9))
    return float(high - low) * GRID_S
