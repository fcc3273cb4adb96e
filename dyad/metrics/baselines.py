"""What any model must beat: the mean predictor and the best lagged mimicry of the speaker.

Mimicry reads the speaker's own units, lagged: the classic "smile back" robot. It is fitted on training sessions, per
unit, over lags of 0 to 1.5 s, in two ways: least squares (best skill) and matched spread (best CCC).
Shapes: T frames, A units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyad.metrics.checks import require_finite

Floats = NDArray[np.float32]
LAGS = tuple(range(0, 46, 3))


def lagged(speaker: Floats, lag: int) -> Floats:
    """Speaker units [T, A] `lag` frames ago; the first frame is held before the start."""
    return speaker[np.maximum(np.arange(len(speaker)) - lag, 0)]


@dataclass(frozen=True)
class Mimicry:
    """Per unit: lag in frames, and the line from the speaker's unit to the listener's."""

    lags: NDArray[np.int64]
    slope: NDArray[np.float64]
    offset: NDArray[np.float64]

    def predict(self, speaker: Floats) -> Floats:
        """Listener probability [T, A] from the speaker's units [T, A]."""
        columns = [lagged(speaker[:, [a]], int(lag))[:, 0] for a, lag in enumerate(self.lags)]
        return np.clip(np.stack(columns, axis=1) * self.slope + self.offset, 0, 1).astype(np.float32)


def fit_mimicry(speaker: Sequence[Floats], listener: Sequence[Floats]) -> tuple[Mimicry, Mimicry]:
    """(least squares, matched spread) over training sessions: lists of [T, A] of equal lengths.

    NaN in `listener` is not annotated; a unit that never is stays at 0. `speaker` must be finite.
    """
    for i, one in enumerate(speaker):
        require_finite(one, session=f"session {i}", what="speaker")
    y = np.concatenate(listener).astype(np.float64)
    y[:, np.isnan(y).all(axis=0)] = 0
    correlation = np.zeros((len(LAGS), y.shape[1]))
    for i, lag in enumerate(LAGS):
        x = np.concatenate([lagged(s, lag) for s in speaker]).astype(np.float64)
        correlation[i] = _correlation(x, y)
    best = correlation.argmax(axis=0)
    lags = np.array(LAGS)[best]
    x = np.stack(
        [np.concatenate([lagged(s[:, [a]], int(lags[a]))[:, 0] for s in speaker]) for a in range(y.shape[1])], 1
    )
    r, my, mx = correlation[best, np.arange(y.shape[1])], np.nanmean(y, axis=0), x.mean(axis=0)
    spread = np.nanstd(y, axis=0) / np.maximum(x.std(axis=0), 1e-6)
    least, matched = r * spread, np.sign(r) * spread
    return Mimicry(lags, least, my - least * mx), Mimicry(lags, matched, my - matched * mx)


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson per column over the rows where `y` is known; 0 where undefined."""
    known = ~np.isnan(y)
    n = np.maximum(known.sum(axis=0), 1)
    xk, yk = np.where(known, x, 0), np.where(known, y, 0)
    dx, dy = np.where(known, x - xk.sum(0) / n, 0), np.where(known, yk - yk.sum(0) / n, 0)
    scale = np.sqrt((dx**2).sum(0) * (dy**2).sum(0))
    return np.where(scale > 1e-9, (dx * dy).sum(0) / np.maximum(scale, 1e-9), 0.0)
