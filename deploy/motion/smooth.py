"""Calm a jittering curve without holding back a fast one: the One-Euro filter, for all units at once.

Causal: a first-order low-pass whose cut-off rises with speed. Source: Casiez, Roussel & Vogel, "1 € filter", 2012.
Gaussian smoothing looks ahead and is therefore not offered on a live stream. Shapes: A action units.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Units = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class OneEuroConfig:
    """Cut-off at rest (Hz), how much speed opens it, cut-off of the speed itself (Hz)."""

    rest_hz: float = 1.5
    opening: float = 2.5
    speed_hz: float = 2.0


class OneEuro:
    """State of one stream of units [A]."""

    def __init__(self, config: OneEuroConfig | None = None) -> None:
        self._config = config or OneEuroConfig()
        self._value: Units | None = None
        self._speed = np.zeros(0, np.float32)

    def step(self, value: Units, dt_s: float) -> Units:
        """The smoothed value; the first one passes as it is. `dt_s` > 0."""
        if self._value is None:
            self._value, self._speed = value.copy(), np.zeros_like(value)
            return value
        speed = (value - self._value) / dt_s
        self._speed = self._speed + _weight(self._config.speed_hz, dt_s) * (speed - self._speed)
        cutoff = np.float32(self._config.rest_hz) + np.float32(self._config.opening) * np.abs(self._speed)
        self._value = (self._value + _weight(cutoff, dt_s) * (value - self._value)).astype(np.float32)
        return self._value


def _weight(cutoff_hz: float | Units, dt_s: float) -> Units:
    """Share of the new value in a first-order low-pass."""
    turns = 2 * np.pi * np.asarray(cutoff_hz, np.float32) * np.float32(dt_s)
    return np.asarray(turns / (turns + 1), np.float32)
