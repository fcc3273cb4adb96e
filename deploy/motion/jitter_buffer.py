"""Plans of the last half second, ready to be read at any moment: a gap on the wire is ridden out on prediction.

Every plan covers its target times, and goes on beyond its last row as foresight.py guesses; the controller bounds how
far that is read. The newest speaks, or all that cover a moment, with weights that fall with their age and with how much
of it is guessed (`blend_s`).  Shapes: K plans kept, H rows each, C channels, M moments asked for.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.motion.config import MotionConfig
from deploy.motion.course import Supply
from deploy.motion.foresight import BEYOND_S, Foresight
from deploy.motion.states import Verdict
from deploy.plan import AUPlan, is_safe
from dyad.action_units import SEED17

Array = NDArray[np.float64]
CLOCK_SLACK_S = 0.25
"""A plan captured further in the future than clocks on two machines may differ is absurd."""
OLDEST_S = 5.0
"""So is one captured so long ago, or reaching so far back."""
BELIEVED_S = 0.02
"""A guess beyond a plan's end loses its say, where a newer plan has one, with this time constant."""


def is_sound(plan: AUPlan, now_s: float, reach_s: float) -> bool:
    """Whether a plan can be moved by: shapes, numbers in range, times that rise and end within `reach_s` of now."""
    times, units = plan.target_times_s, len(SEED17.units)
    arrays = (times, plan.au, plan.confidence)
    if not all(isinstance(x, np.ndarray) and x.dtype.kind == "f" for x in arrays) or times.ndim != 1 or not len(times):
        return False
    if plan.au.shape != (len(times), units) or plan.confidence.shape != plan.au.shape:
        return False
    if not (is_safe(plan.au) and is_safe(plan.confidence) and np.isfinite([*times, plan.captured_at_s]).all()):
        return False
    in_time = now_s - OLDEST_S <= plan.captured_at_s <= now_s + CLOCK_SLACK_S and times[0] >= now_s - OLDEST_S
    return bool(in_time and (np.diff(times) > 0).all() and times[-1] <= now_s + reach_s)


@dataclass(frozen=True)
class _Kept:
    captured_at_s: float
    end_s: float
    """When the last row that was told is due."""
    times_s: Array
    """[H], then those guessed."""
    shares: Array


class PlanBuffer:
    """Plans in the order of their numbers."""

    def __init__(self, config: MotionConfig) -> None:
        self._config = config
        self._kept: list[_Kept] = []
        self._foresight = Foresight()
        self._last_seq: int | None = None
        self.supply: Supply | None = None
        """The newest plan's times; None before the first."""
        self.captured_at_s = 0.0

    def judge(self, plan: AUPlan, now_s: float) -> Verdict:
        """What is to become of a plan; the worst reason first."""
        if not is_sound(plan, now_s, 2 * self._config.buffer_s):
            return "refused"
        if self._last_seq is not None and plan.seq <= self._last_seq:
            return "old"
        return "late" if plan.target_times_s[-1] < now_s - self._config.late_s else "taken"

    def add(self, plan: AUPlan, shares: Array, now_s: float) -> None:
        """Keep a plan that was judged `taken`, with its rows as channel shares [H, C]."""
        times = np.array(plan.target_times_s, float)
        if len(times) == 1:
            times, shares = np.array([times[0] - 1e-3, times[0]]), np.repeat(shares, 2, axis=0)
        oldest_s = plan.captured_at_s - self._config.buffer_s
        blend = self._config.blend_s > 0
        end_s = float(times[-1])
        shares = np.concatenate([shares, self._foresight.beyond(times, shares)])
        times = np.concatenate([times, end_s + BEYOND_S])
        self._kept = [k for k in self._kept if blend and k.captured_at_s > oldest_s and len(k.times_s) == len(times)]
        self._kept.append(_Kept(plan.captured_at_s, end_s, times, shares))
        self._times = np.stack([k.times_s for k in self._kept])
        self._shares = np.stack([k.shares for k in self._kept])
        self._ends_s = np.array([k.end_s for k in self._kept])
        ages_s = plan.captured_at_s - np.array([k.captured_at_s for k in self._kept])
        self._trust = np.exp(-ages_s / max(self._config.blend_s, 1e-6))
        self._last_seq, self.captured_at_s = plan.seq, plan.captured_at_s
        self.supply = Supply(now_s, end_s)

    def forget_numbers(self) -> None:
        """A sender that was silent for long may begin its numbers anew."""
        self._last_seq = None

    def clear(self) -> None:
        """Forget all plans; the numbers go on."""
        self._kept, self.supply = [], None

    def read(self, at_s: Array) -> Array:
        """Channel shares [M, C] for the moments `at_s` [M, C]."""
        n_plans = len(self._times)
        high = (self._times[:, 1:-1, None, None] <= at_s).sum(axis=1) + 1  # [K, M, C]: the row after, 1 … H - 1
        plan, channel = np.arange(n_plans)[:, None, None], np.arange(at_s.shape[1])
        early = self._times[plan, high - 1]
        part = np.minimum(np.maximum((at_s - early) / (self._times[plan, high] - early), 0.0), 1.0)
        low = self._shares[plan, high - 1, channel]
        said = low + part * (self._shares[plan, high, channel] - low)
        return said[0] if n_plans == 1 else self._blended(said, at_s)

    def _blended(self, said: Array, at_s: Array) -> Array:
        """All plans that reach a moment, the younger and the surer the weightier; the newest alone before all."""
        guessed_s = np.maximum(at_s - self._ends_s[:, None, None], 0.0)
        guessed_s = guessed_s - guessed_s[-1]  # as far as the newest guesses, all do
        weight = (at_s >= self._times[:, :1, None]) * self._trust[:, None, None] * np.exp(-guessed_s / BELIEVED_S)
        weight[-1] += 1e-9
        return (said * weight).sum(axis=0) / weight.sum(axis=0)
