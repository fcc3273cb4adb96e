"""Calm a jittering curve without holding back a fast one, for all channels at once.

Causal both: the One-Euro filter, a first-order low-pass whose cut-off rises with speed, and a Kalman filter of constant
velocity. Gaussian smoothing sees the future: `distill` may use it on finished recordings, a live stream never. What a
filter costs in time is measured with everything else (latency.py) and looked ahead over.  Shapes: C channels.
Sources: Casiez, Roussel & Vogel, "1 € filter", 2012; Kalman, 1960.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Channels = NDArray[np.float64]
USUAL_PER_S = 0.5
"""Shares of travel per second at which a lag is told before one is measured. Too long a first guess would have plans
read so far ahead that, where they are noisy, no lag could be measured any more."""


class Smoother(Protocol):
    """One stream of channels."""

    def reset(self, value: Channels) -> None:
        """Begin anew at `value` [C], at rest."""
        ...

    def step(self, value: Channels, dt_s: float) -> Channels:
        """The smoothed value [C]; `dt_s` > 0."""
        ...

    def lag_s(self) -> float:
        """How late it is on a usual movement."""
        ...


@dataclass(frozen=True, kw_only=True)
class OneEuroConfig:
    """Cut-off at rest (Hz), how much speed opens it, cut-off of the speed itself (Hz)."""

    rest_hz: float = 3.0
    opening: float = 8.0
    speed_hz: float = 2.0


class OneEuro:
    """State of the One-Euro filter."""

    def __init__(self, channels: int, config: OneEuroConfig | None = None) -> None:
        self._config = config or OneEuroConfig()
        self.reset(np.zeros(channels))

    def reset(self, value: Channels) -> None:
        """Begin anew at `value` [C], at rest."""
        self._value, self._speed = np.array(value, float), np.zeros(len(value))

    def step(self, value: Channels, dt_s: float) -> Channels:
        """The smoothed value [C]; `dt_s` > 0."""
        speed = (value - self._value) / dt_s
        self._speed = self._speed + _weight(self._config.speed_hz, dt_s) * (speed - self._speed)
        cutoff = self._config.rest_hz + self._config.opening * np.abs(self._speed)
        self._value = self._value + _weight(cutoff, dt_s) * (value - self._value)
        return self._value

    def lag_s(self) -> float:
        """How late it is on an expression's usual speed; a slower one is later, a faster one opens it further."""
        return 1 / (2 * np.pi * (self._config.rest_hz + self._config.opening * USUAL_PER_S))


def _weight(cutoff_hz: float | Channels, dt_s: float) -> Channels:
    """Share of the new value in a first-order low-pass."""
    turns = 2 * np.pi * np.asarray(cutoff_hz) * dt_s
    return np.asarray(turns / (turns + 1))


@dataclass(frozen=True, kw_only=True)
class KalmanConfig:
    """How much the speed may wander (shares/s² in √s), and how noisy a goal is (shares)."""

    wander: float = 6.0
    noise: float = 0.05


class Kalman:
    """State of the constant-velocity filter; one covariance serves all channels, for all are measured alike."""

    def __init__(self, channels: int, config: KalmanConfig | None = None) -> None:
        self._config = config or KalmanConfig()
        self.reset(np.zeros(channels))

    def reset(self, value: Channels) -> None:
        """Begin anew at `value` [C], at rest."""
        self._value, self._speed = np.array(value, float), np.zeros(len(value))
        self._pp, self._pv, self._vv = self._config.noise**2, 0.0, 1.0

    def step(self, value: Channels, dt_s: float) -> Channels:
        """The smoothed value [C]; `dt_s` > 0."""
        gain_p, gain_v = self._gains(dt_s)
        ahead = self._value + self._speed * dt_s
        surprise = value - ahead
        self._value, self._speed = ahead + gain_p * surprise, self._speed + gain_v * surprise
        return self._value

    def _gains(self, dt_s: float) -> tuple[float, float]:
        """Predict the covariance, weigh the measurement, correct the covariance."""
        q = self._config.wander**2
        pp = self._pp + dt_s * (2 * self._pv + dt_s * self._vv) + q * dt_s**3 / 3
        pv = self._pv + dt_s * self._vv + q * dt_s**2 / 2
        vv = self._vv + q * dt_s
        gain_p, gain_v = pp / (pp + self._config.noise**2), pv / (pp + self._config.noise**2)
        self._pp, self._pv, self._vv = (1 - gain_p) * pp, (1 - gain_p) * pv, vv - gain_v * pv
        return gain_p, gain_v

    def lag_s(self) -> float:
        """How late it is on a slow movement: not at all, a steady speed is its model."""
        return 0.0


class Unsmoothed:
    """The goal as it is."""

    def reset(self, value: Channels) -> None:
        """Nothing to forget."""

    def step(self, value: Channels, dt_s: float) -> Channels:
        """The same value."""
        return value

    def lag_s(self) -> float:
        """None."""
        return 0.0


def make(kind: str, channels: int) -> Smoother:
    """A smoother by its name."""
    if kind == "none":
        return Unsmoothed()
    return OneEuro(channels) if kind == "one-euro" else Kalman(channels)
