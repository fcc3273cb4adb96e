"""How one robot shows action units: a YAML file in configs/robots, checked before anything moves."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import SEED17
from dyad.config import load as load_config

FOLDER = Path(__file__).resolve().parent.parent / "configs" / "robots"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """One robot's mapping, limits and delays; times in seconds, intensities in [0, 1]."""

    robot: str
    dead_time_s: float
    time_constant_s: float
    rest: float
    """Probability below which a unit rests."""
    gain: float
    gamma: float
    velocity_per_s: float
    acceleration_per_s2: float
    share_max: tuple[str, ...] = ()
    """Channels where the largest of several units counts, not their sum."""
    au: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what could move a robot wrongly."""
        for unit in self.au:
            SEED17.index(unit)
        if not (0 <= self.rest < 1 and self.gain > 0 and self.gamma > 0):
            raise ValueError(f"calibration {self.robot}: 0 ≤ rest < 1, gain > 0 and gamma > 0 are needed")
        if self.velocity_per_s <= 0 or self.acceleration_per_s2 <= 0:
            raise ValueError(f"calibration {self.robot}: velocity and acceleration limits must be positive")
        if not (0 <= self.dead_time_s < 1 and 0 <= self.time_constant_s < 1):
            raise ValueError(f"calibration {self.robot}: dead_time_s and time_constant_s must be in [0, 1) seconds")

    @classmethod
    def load(cls, name: str, folder: Path = FOLDER) -> "Calibration":
        """Read configs/robots/<name>.yaml."""
        return load_config(cls, folder / f"{name}.yaml")

    def intensity(self, prob: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities → intensities in [0, 1], any shape."""
        above = np.clip((prob - self.rest) / (1 - self.rest), 0, 1)
        return np.clip(self.gain * above**self.gamma, 0, 1).astype(np.float32)

    def weights(self, channels: Sequence[str]) -> NDArray[np.float64]:
        """Share of each channel per unit, [17, C]; a channel that the robot lacks is refused with the nearest."""
        out = np.zeros((len(SEED17.units), len(channels)))
        for channel in self.share_max:
            self._position(channel, channels, "share_max")
        for unit, shares in self.au.items():
            for channel, share in shares.items():
                out[SEED17.index(unit), self._position(channel, channels, unit)] = share
        return out

    def _position(self, channel: str, channels: Sequence[str], where: str) -> int:
        if channel in channels:
            return channels.index(channel)
        near = difflib.get_close_matches(channel, channels, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(channels)}"
        raise ValueError(f"calibration {self.robot}: {where} names {channel!r}, which the robot lacks; {hint}")

    def mix(
        self, au: NDArray[np.float32], weights: NDArray[np.float64], channels: Sequence[str]
    ) -> NDArray[np.float64]:
        """Intensities [17] → channel shares [C] in [-1, 1]."""
        moved = au[:, None] * weights
        shares = moved.sum(axis=0)
        for name in self.share_max:
            c = channels.index(name)
            shares[c] = moved[np.abs(moved[:, c]).argmax(), c]
        return np.clip(shares, -1, 1)
