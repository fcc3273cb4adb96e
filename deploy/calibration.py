"""How one robot shows action units: a YAML file in configs/robots, checked before anything moves.

Units → channels by weights; where several units share a channel their movements add up, antagonists cancel, and in
channels under `share_max` the largest counts alone (one jaw, two units). Every channel has its neutral, its ends in the
device's own unit, and its limits. Shapes: A = 17 action units (SEED17), C channels in the file's order, [..., A] any
leading dimensions.
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import SEED17
from dyad.config import PRESETS
from dyad.config import load as load_config

FOLDER = PRESETS / "robots"
LONGEST_RETURN_S = 1.4
"""A robot's motors must be able to be home from any motion in so long; the dead-man's promise of 1.5 s rests on it."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One actuator or blend shape. `None` means: as the robot's own entry says."""

    neutral: float = 0.0
    low: float = 0.0
    """Value in the device's unit at share -1; equal to neutral where the channel moves one way only."""
    high: float = 1.0
    """Value in the device's unit at share 1."""
    velocity_per_s: float | None = None
    acceleration_per_s2: float | None = None
    jerk_per_s3: float | None = None
    max_hold_s: float | None = None
    """Longest time beyond `hold_above` before the channel must relax to it; None: no such rule."""
    hold_above: float = 0.6
    """Share of the travel (either way) that counts as held."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """One robot's mapping, limits and delays; times in seconds, intensities in [0, 1], limits in shares of travel."""

    robot: str
    dead_time_s: float
    """From a command until its sensor sees the motor begin to move; `python -m deploy.calibrate` measures it."""
    time_constant_s: float
    """Mean delay of the joints' answer after that, inertia and all; of a first-order lag it is the time constant."""
    rate_hz: float = 60.0
    """Commands per second."""
    rest: float
    """Probability below which a unit rests."""
    gain: float
    gamma: float
    gains: dict[str, float] = field(default_factory=dict)
    """Units whose gain differs from `gain`."""
    velocity_per_s: float
    acceleration_per_s2: float
    jerk_per_s3: float = 3000.0
    share_max: tuple[str, ...] = ()
    """Channels where the largest of several units counts, not their sum."""
    channels: dict[str, Channel] = field(default_factory=dict)
    au: dict[str, dict[str, float]] = field(default_factory=dict)
    """unit → {channel: share of the channel's travel at intensity 1}."""

    def __post_init__(self) -> None:
        """Refuse what could move a robot wrongly."""
        for unit in (*self.au, *self.gains):
            SEED17.index(unit)
        if not (0 <= self.rest < 1 and min([self.gain, *self.gains.values()]) > 0 and self.gamma > 0):
            raise ValueError(f"calibration {self.robot}: 0 ≤ rest < 1, gain > 0 and gamma > 0 are needed")
        if not (0 <= self.dead_time_s < 1 and 0 <= self.time_constant_s < 1):
            raise ValueError(f"calibration {self.robot}: dead_time_s and time_constant_s must be in [0, 1) seconds")
        if not 1 <= self.rate_hz <= 500:
            raise ValueError(f"calibration {self.robot}: rate_hz must be in [1, 500], got {self.rate_hz}")
        for name, channel in self.channels.items():
            self._check_channel(name, channel)
        for channel in (*self.share_max, *(c for shares in self.au.values() for c in shares)):
            self.position(channel)
        for unit, shares in self.au.items():
            for channel, share in shares.items():
                if not -1 <= share <= 1:
                    raise ValueError(f"calibration {self.robot}: {unit} moves {channel} by {share}; wanted -1…1")
        for name, limits in zip(("velocity", "acceleration", "jerk"), self._limits(), strict=True):
            if not (np.isfinite(limits).all() and (limits > 0).all()):
                raise ValueError(f"calibration {self.robot}: {name} limits must be positive")
        self._check_return()

    def _check_channel(self, name: str, channel: Channel) -> None:
        ends = (channel.low, channel.neutral, channel.high)
        if not np.isfinite(ends).all() or not (ends == tuple(sorted(ends)) or ends == tuple(sorted(ends)[::-1])):
            raise ValueError(
                f"calibration {self.robot}: channel {name} wants its neutral between low and high, got neutral "
                f"{channel.neutral}, low {channel.low}, high {channel.high}"
            )
        if channel.low == channel.high:
            raise ValueError(f"calibration {self.robot}: channel {name} has no travel (low = high = {channel.low})")
        if channel.max_hold_s is not None and channel.max_hold_s <= 0:
            raise ValueError(f"calibration {self.robot}: channel {name}: max_hold_s must be positive")
        if not 0 < channel.hold_above <= 1:
            raise ValueError(f"calibration {self.robot}: channel {name}: hold_above must be in (0, 1]")

    def _check_return(self) -> None:
        """The dead-man's promise: neutral from any motion: a full stop, all the way, the motors' own time, the beat."""
        velocity, acceleration, jerk = self._limits()
        if not len(velocity):
            return
        ramp_s = velocity / acceleration + acceleration / jerk
        ways_s = 1 / velocity + 2 * ramp_s + self.settle_s
        slowest = int(ways_s.argmax())
        if ways_s[slowest] > LONGEST_RETURN_S:
            raise ValueError(
                f"calibration {self.robot}: {self.names[slowest]} may need {ways_s[slowest]:.2f} s to neutral, more "
                f"than the {LONGEST_RETURN_S} s that a lost connection allows; raise its velocity, acceleration or "
                "jerk limit, or have its motors answer sooner (dead_time_s, time_constant_s, rate_hz)"
            )

    @property
    def settle_s(self) -> float:
        """From the last command of a way home until the motors are there.

        The way ends gently, at no more than about a travel a second: two time constants later the motors have 1 % left.
        """
        return self.dead_time_s + 2 * self.time_constant_s + 2 / self.rate_hz

    @classmethod
    def load(cls, name: str, folder: Path = FOLDER) -> "Calibration":
        """Read configs/robots/<name>.yaml."""
        return load_config(cls, folder / f"{name}.yaml")

    @property
    def names(self) -> tuple[str, ...]:
        """Channel names, the order of every [C]."""
        return tuple(self.channels)

    def position(self, channel: str) -> int:
        """Index of a channel; one that there is not is refused with the nearest."""
        if channel in self.channels:
            return self.names.index(channel)
        near = difflib.get_close_matches(channel, self.names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.names)}"
        raise ValueError(f"calibration {self.robot}: no channel {channel!r}; {hint}")

    def _limits(self) -> tuple[NDArray[np.float64], ...]:
        keys = ("velocity_per_s", "acceleration_per_s2", "jerk_per_s3")
        rows = [[self._own(c, key) for c in self.channels.values()] for key in keys]
        return tuple(np.array(row, float) for row in rows)

    def _own(self, channel: Channel, key: str) -> float:
        value = getattr(channel, key)
        return getattr(self, key) if value is None else value

    @property
    def limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Velocity, acceleration and jerk of every channel, [C] each, shares of travel per s, s² and s³."""
        velocity, acceleration, jerk = self._limits()
        return velocity, acceleration, jerk

    @property
    def one_way(self) -> NDArray[np.bool_]:
        """[C] channels that move from neutral to high only."""
        return np.array([c.low == c.neutral for c in self.channels.values()], bool)

    def intensity(self, prob: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities → intensities in [0, 1], [..., A] in SEED17's order (any shape, where one gain is for all)."""
        above = np.clip((prob - self.rest) / (1 - self.rest), 0, 1)
        gain = np.array([self.gains.get(unit, self.gain) for unit in SEED17.units]) if self.gains else self.gain
        return np.clip(gain * above**self.gamma, 0, 1).astype(np.float32)

    def weights(self) -> NDArray[np.float64]:
        """Share of each channel's travel per unit at intensity 1, [A, C]."""
        out = np.zeros((len(SEED17.units), len(self.channels)))
        for unit, shares in self.au.items():
            for channel, share in shares.items():
                out[SEED17.index(unit), self.position(channel)] = share
        return out

    def device_values(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares [..., C] → values in each channel's own unit."""
        neutral, low, high = (
            np.array([getattr(c, k) for c in self.channels.values()], float) for k in ("neutral", "low", "high")
        )
        return neutral + np.where(shares >= 0, shares * (high - neutral), -shares * (low - neutral))

    def shares_of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values in each channel's own unit [..., C] → shares of travel; the inverse of `device_values`."""
        ends = [(c.neutral, c.low, c.high) for c in self.channels.values()]
        neutral, low, high = (np.array(x, float) for x in zip(*ends, strict=True)) if ends else (np.zeros(0),) * 3
        up, down = high - neutral, neutral - low
        moved = values - neutral
        upwards = moved * np.sign(high - low) >= 0
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(np.where(upwards, moved / up, moved / down), posinf=0.0, neginf=0.0)


class Mixer:
    """Intensities → channel shares, for one calibration."""

    def __init__(self, calibration: Calibration) -> None:
        self._weights = calibration.weights()
        self._largest = [calibration.position(name) for name in calibration.share_max]
        self._low = np.where(calibration.one_way, 0.0, -1.0)

    def mix(self, au: NDArray[np.float32]) -> NDArray[np.float64]:
        """Intensities [..., A] → shares [..., C] in [-1, 1], never below 0 where a channel moves one way only."""
        shares = np.asarray(au, float) @ self._weights
        for c in self._largest:
            moved = au * self._weights[:, c]
            largest = np.abs(moved).argmax(axis=-1)[..., None]
            shares[..., c] = np.take_along_axis(moved, largest, axis=-1)[..., 0]
        return np.clip(shares, self._low, 1)
