"""Intervals over sessions: whole conversations are drawn with replacement, never frames.

Frames of one conversation resemble each other; an interval over frames would be far too narrow. Sessions of one
recording do too, both directions of a clip above all: they are drawn together.

A mean over units is biased in small resamples: what moves in few sessions is lost in many draws, and percentiles of the
draws miss the truth. So an interval starts from the score, and from the score less the bias that the draws show, and
reaches Student's t standard deviations of the draws beyond the outer of the two. It always holds its own value. What it
covers is measured by benchmarks/intervals.py; docs/metrics.md says how many sessions that takes.
Shapes: S sessions, R resamples, A units, K sums.  Student's t: Abramowitz & Stegun, 1964, 26.7.3 and 26.7.4.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bounds = tuple[float, float]
ANYTHING: Bounds = (-math.inf, math.inf)
UNDEFINED = 0.2
"""Where more of the resamples than this are undefined, the score rests on a single session: it has no interval."""


@dataclass(frozen=True)
class Resampling:
    """Which sessions were drawn how often; the same for every system, so that their differences are paired."""

    counts: Array
    """[R, S]"""
    independent: int
    """Recordings among them: what was really drawn."""

    @classmethod
    def of(cls, recordings: Sequence[Hashable], resamples: int, seed: int = 0) -> "Resampling":
        """Draw recordings, the sessions of one together; none for a single recording, which has no interval."""
        place = {name: i for i, name in enumerate(dict.fromkeys(recordings))}
        counts = resample_counts(len(place), resamples if len(place) > 1 else 0, seed)
        return cls(counts[:, [place[name] for name in recordings]], len(place))

    def interval(self, value: float, resampled: Array, bounds: Bounds = ANYTHING) -> tuple[float, float]:
        """Interval of a score from its resamples [R]."""
        return interval(resampled, value, self.independent, bounds=bounds)


def resample_counts(sessions: int, resamples: int, seed: int = 0) -> Array:
    """How often each session is drawn, [resamples, sessions]; the same seed pairs two systems."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, sessions, (resamples, sessions))
    counts = [np.bincount(d, minlength=sessions) for d in draws]
    return np.array(counts, np.float64).reshape(resamples, sessions)


def interval(
    resampled: Array, value: float, independent: int, *, level: float = 0.95, bounds: Bounds = ANYTHING
) -> tuple[float, float]:
    """Interval of `value` from its resamples [R] over so many independent sessions, within the score's range.

    NaN for an undefined value, fewer than two sessions, and where too many resamples are undefined.
    """
    known = resampled[~np.isnan(resampled)]
    if independent < 2 or math.isnan(value) or not len(known) or len(known) < (1 - UNDEFINED) * len(resampled):
        return math.nan, math.nan
    spread = float(known.std()) * math.sqrt(independent / (independent - 1))
    reach, unbiased = student_t(level, independent - 1) * spread, 2 * value - float(known.mean())
    low, high = min(value, unbiased) - reach, max(value, unbiased) + reach
    return max(low, min(bounds[0], value)), min(high, max(bounds[1], value))


@lru_cache
def student_t(level: float, freedom: int) -> float:
    """Student's t within ± which `level` of the distribution lies; a thousand degrees of freedom stand for more."""
    freedom = min(freedom, 1000)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Probability of |t| ≤ √freedom · tan(angle)."""
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k)) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def bootstrap(totals: Array, score: Callable[[Array], Array], counts: Array) -> Array:
    """`score` of every resample: `totals` [S, A, K] are per-session sums, `counts` [R, S]; returns [R, ...]."""
    summed = np.einsum("rs,sak->rak", counts, totals)
    return score(summed)


def paired(
    first: Array, second: Array, score: Callable[[Array], Array], resampling: Resampling
) -> tuple[float, float, float]:
    """Score of one system minus another's, with its interval; both are sums [S, A, K] of the same sessions.

    `score` takes sums [..., A, K] to one number each, [...].
    """
    if first.shape[:2] != second.shape[:2] or len(first) != resampling.counts.shape[1]:
        raise ValueError(
            f"sums [S, A, K] of the same {resampling.counts.shape[1]} sessions and units are needed; "
            f"got {list(first.shape)} and {list(second.shape)}; score both systems on the same sessions"
        )
    value = float(score(first.sum(axis=0)) - score(second.sum(axis=0)))
    drawn = [bootstrap(one, score, resampling.counts) for one in (first, second)]
    return value, *resampling.interval(value, drawn[0] - drawn[1])
