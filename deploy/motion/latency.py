"""How far to look ahead: as far as the face is late, measured on the robot's own joints, channel by channel.

Two lags add up: of the command behind the goal (smoothing and limits) and of the motors behind the command. Each is
where the later curve's speed correlates best with the earlier one's, over a memory of about a second that only motion
fills: a still face tells nothing and changes nothing. The look-ahead follows slowly, so that the face never jumps in
time, and goes no further than plans usually reach when the next one is about to come.
Shapes: C channels, K lags tried.  Source: the system's requirements, "adaptive delay compensation".
"""

import numpy as np
from numpy.typing import NDArray

from deploy.motion.config import MotionConfig

Channels = NDArray[np.float64]
STEP_S = 1 / 60
"""Between two lags tried; the peak is found between them."""
LONGEST_S = 0.6
SPAN_STEPS = 2
"""Speeds are differences over so many steps: noise of the sensors averages out, a movement's moment stays."""
EVERY_S = 0.045
"""At least between two lessons; ticks come faster than movements tell something new."""
SETTLE_EVERY = 4
"""Lessons from one look at the single channels to the next."""
MEMORY_S = 0.8
"""Of moving; the evidence for a changed lag outweighs the old after ln 2 of it."""
LEAST_MOTION = 1e-5
"""Mean squared way [shares²] over a span below which a tick tells nothing."""
TRUSTED = 0.7
"""Correlation from which a peak counts."""
FIRST_S = 0.3
"""Of moving, before any peak counts: the first few ways agree with any lag by chance."""
SOON_S = 0.2
"""The short memory."""
JUMP_S, SURE, BETTER, IN_A_ROW = 0.04, 0.9, 0.05, 3
"""A lag has jumped where the short memory's peak is so far from it, so high, and so much higher than the lag's own
correlation, so many lessons in a row."""
ENOUGH = 2e-3
"""Summed squared way [shares²] from which a channel's own peak has half the say."""
ROOM_FALLS, ROOM_RISES = 0.4, 0.1
"""How fast the room that plans leave is learnt, seconds per second: the ratio makes it their lowest fifth."""
SLACK_S = 0.05
"""Kept free of what may be read beyond a plan's end, for plans later than usual."""


class Curve:
    """The last points of a curve [C] at uneven times, to be read anywhere between them."""

    def __init__(self, channels: int, points: int = 128) -> None:
        self._times, self._values = np.zeros(2 * points), np.zeros((2 * points, channels))
        self._points, self._end = points, 0

    @property
    def last_s(self) -> float:
        """Time of the newest point; minus infinity without one."""
        return float(self._times[self._end - 1]) if self._end else -np.inf

    @property
    def first_s(self) -> float:
        """Time of the oldest point kept; infinity without one."""
        return float(self._times[self._start]) if self._end else np.inf

    @property
    def _start(self) -> int:
        return max(self._end - self._points, 0)

    def add(self, at_s: float, value: Channels) -> None:
        """A newer point."""
        if self._end == len(self._times):
            self._times[: self._points] = self._times[-self._points :]
            self._values[: self._points] = self._values[-self._points :]
            self._end = self._points
        self._times[self._end], self._values[self._end] = at_s, value
        self._end += 1

    def clear(self) -> None:
        """Forget all points."""
        self._end = 0

    def at(self, times_s: Channels) -> NDArray[np.float64]:
        """Values [K, C] at times [K], between the points; the ends go on."""
        times, values = self._times[self._start : self._end], self._values[self._start : self._end]
        if len(times) == 1:
            return np.repeat(values, len(times_s), axis=0)
        high = np.minimum(np.maximum(np.searchsorted(times, times_s), 1), len(times) - 1)
        part = np.minimum(np.maximum((times_s - times[high - 1]) / (times[high] - times[high - 1]), 0.0), 1.0)
        low = values[high - 1]
        return low + part[:, None] * (values[high] - low)


class _Evidence:
    """What a memory of `memory_s` of moving says of every lag tried."""

    def __init__(self, lags: int, channels: int, memory_s: float) -> None:
        self._memory_s = memory_s
        self.together, self.power = np.zeros((lags, channels)), np.zeros((lags, channels))
        self.followed = np.zeros(channels)
        self.moving_s = 0.0

    def add(self, leading: NDArray[np.float64], following: Channels, dt_s: float) -> None:
        """One tick's ways [K, C] and [C]."""
        keep, share = np.exp(-dt_s / self._memory_s), dt_s / STEP_S
        self.together = keep * self.together + share * leading * following
        self.power = keep * self.power + share * leading**2
        self.followed = keep * self.followed + share * following**2
        self.moving_s = keep * self.moving_s + dt_s

    def become(self, other: "_Evidence") -> None:
        """Forget all, and know what `other` does."""
        self.together, self.power, self.followed = other.together, other.power, other.followed

    def common(self) -> Channels:
        """Correlation [K] over all channels."""
        return self.together.sum(axis=1) / np.sqrt(self.power.sum(axis=1) * self.followed.sum() + 1e-12)

    def single(self) -> NDArray[np.float64]:
        """Correlation [K, C] of every channel."""
        return self.together / np.sqrt(self.power * self.followed + 1e-12)


class LagMeter:
    """Lag of one curve behind another, for all channels."""

    def __init__(self, channels: int, first_guess_s: float) -> None:
        n_lags = int(LONGEST_S / STEP_S) + 1
        self._back_s: Channels = STEP_S * np.arange(n_lags + SPAN_STEPS, dtype=float)
        self._long, self._short = (_Evidence(n_lags, channels, memory_s) for memory_s in (MEMORY_S, SOON_S))
        self._learnt_s, self._lessons, self._jumps = -np.inf, 0, 0
        self._each = np.arange(channels)
        self._told, self._did = Curve(channels), Curve(channels)
        self.measured = False
        self.lag_s = first_guess_s
        """Over all channels."""
        self.lags_s: Channels = np.full(channels, first_guess_s)

    def forget(self) -> None:
        """The curves were interrupted: what was learnt stays, what was seen goes."""
        self._told.clear()
        self._did.clear()

    def watch(self, told_s: float, told: Channels, did_s: float, did: Channels) -> None:
        """One tick: the leading curve [C] at its time, the following one at its own."""
        in_order = told_s > self._told.last_s and did_s > self._did.last_s
        if not (in_order and len(told) and np.isfinite(did_s) and np.isfinite(did).all()):
            return
        self._told.add(told_s, told)
        self._did.add(did_s, did)
        known = self._told.first_s <= did_s - self._back_s[-1] and self._did.first_s <= did_s - STEP_S * SPAN_STEPS
        if known and did_s - self._learnt_s >= EVERY_S:
            asked = self._told.at(did_s - self._back_s)
            before = self._did.at(np.array([did_s - SPAN_STEPS * STEP_S]))[0]
            self._learn(asked[:-SPAN_STEPS] - asked[SPAN_STEPS:], did - before, min(did_s - self._learnt_s, 0.1))
            self._learnt_s = did_s

    def _learn(self, leading: NDArray[np.float64], following: Channels, dt_s: float) -> None:
        """Add one tick's ways [K, C] and [C] to the evidence, and see what it says."""
        if (following @ following) / len(following) < LEAST_MOTION:
            return
        self._long.add(leading, following, dt_s)
        self._short.add(leading, following, dt_s)
        if self._has_jumped():
            self._long.become(self._short)
            self._lessons = 0  # the channels are looked at at once
        score = self._long.common()
        peak = int(score.argmax())
        if score[peak] >= TRUSTED and self._long.moving_s >= FIRST_S:
            inner = min(max(peak, 1), len(score) - 2)
            self.lag_s, self.measured = (inner + float(_vertex(score[inner - 1 : inner + 2]))) * STEP_S, True
            self._lessons += 1
            if self._lessons % SETTLE_EVERY == 1:
                self._settle()

    def _has_jumped(self) -> bool:
        """Whether the short memory has been sure of another lag for long enough."""
        score = self._short.common()
        peak, present = int(score.argmax()), min(round(self.lag_s / STEP_S), len(score) - 1)
        other = abs(peak - present) * STEP_S > JUMP_S and score[peak] - score[present] > BETTER
        self._jumps = self._jumps + 1 if self.measured and other and score[peak] >= SURE else 0
        return self._jumps >= IN_A_ROW

    def _settle(self) -> None:
        """Every channel's own peak, leaning on the common one where it moved little."""
        score = self._long.single()
        peak = score.argmax(axis=0)
        inner = np.minimum(np.maximum(peak, 1), len(score) - 2)
        around = score[inner + np.array([[-1], [0], [1]]), self._each]
        own_s = (inner + _vertex(around)) * STEP_S
        evidence = self._long.followed * (score[peak, self._each] >= TRUSTED) * (peak == inner)
        self.lags_s = self.lag_s + evidence / (evidence + ENOUGH) * (own_s - self.lag_s)


def _vertex(score: Channels) -> Channels:
    """Where a parabola through three neighbouring scores [3, ...] peaks, in steps from the middle one."""
    bend = score[0] - 2 * score[1] + score[2]
    return np.minimum(np.maximum(0.5 * (score[0] - score[2]) / np.minimum(bend, -1e-12), -1.0), 1.0)


class LookAhead:
    """The lags, and how far ahead every channel reads its plan."""

    def __init__(self, channels: int, own_lag_s: float, motor_lag_s: float, config: MotionConfig) -> None:
        self.own, self.motor = LagMeter(channels, own_lag_s), LagMeter(channels, motor_lag_s)
        self._config = config
        self._room_s: float | None = None
        self.mean_s = min(own_lag_s + motor_lag_s + config.margin_s, config.longest_look_ahead_s)
        """Of the face as a whole."""
        self.ahead_s: Channels = np.full(channels, self.mean_s)
        """Of every channel."""

    @property
    def lag_s(self) -> float:
        """From a goal until the motors are there."""
        return self.own.lag_s + self.motor.lag_s

    def forget(self) -> None:
        """The motion was interrupted."""
        self.own.forget()
        self.motor.forget()
        self._room_s = None

    def plans_ended(self) -> None:
        """Nobody reads plans at present: how soon the last one ended says nothing of those to come."""
        self._room_s = None

    def update(self, dt_s: float, left_s: float) -> None:
        """Move the look-ahead towards what is measured, by at most the slew; `left_s`: plan beyond now."""
        room_s = left_s if self._room_s is None else self._room_s
        self._room_s = room_s + min(max(left_s - room_s, -ROOM_FALLS * dt_s), ROOM_RISES * dt_s)
        reach_s = max(self._room_s + max(self._config.beyond_s - SLACK_S, 0.0), 0.0)
        longest_s, step = min(self._config.longest_look_ahead_s, reach_s), self._config.slew_per_s * dt_s
        wanted = np.minimum(self.own.lags_s + self.motor.lags_s + self._config.margin_s, longest_s)
        self.ahead_s = self.ahead_s + np.minimum(np.maximum(np.maximum(wanted, 0.0) - self.ahead_s, -step), step)
        mean_s = max(min(self.lag_s + self._config.margin_s, longest_s), 0.0)
        self.mean_s += min(max(mean_s - self.mean_s, -step), step)
