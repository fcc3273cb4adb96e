"""Intervals over sessions: whole conversations are drawn with replacement, never frames.

Frames of one conversation resemble each other; an interval over frames would be far too narrow.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def resample_counts(sessions: int, resamples: int, seed: int = 0) -> Array:
    """How often each session is drawn, [resamples, sessions]; the same seed pairs two systems."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, sessions, (resamples, sessions))
    return np.stack([np.bincount(d, minlength=sessions) for d in draws]).astype(np.float64)


def interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of resampled values; NaN resamples are left out."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(known, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def bootstrap(totals: Array, score: Callable[[Array], Array], counts: Array) -> Array:
    """`score` of every resample: `totals` [S, A, K] are per-session sums, `counts` [R, S]; returns [R, ...]."""
    summed = np.einsum("rs,sak->rak", counts, totals)
    return score(summed)
