"""CCC of many predictions with many targets at once, digit for digit the challenge's.

The 2024 reference computes means and variances in float32, the correlation in float64, and adds 1e-8 to a float32
denominator. All three matter where a channel hardly moves, so all three are kept. The correlations of all pairs are one
matrix product per channel instead of one `numpy.cov` per pair and channel.
Shapes: K predictions, M targets, D channels, T frames.  CCC: Lin, 1989.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPSILON = np.float32(1e-8)


@dataclass(frozen=True)
class Moments:
    """Sequences ready to be compared; the first axis counts them."""

    unit: Array
    """Centred and of length one, [K, D, T]; all zero for a channel that never moves."""
    mean: NDArray[np.float32]
    """[K, D]"""
    variance: NDArray[np.float32]
    """Population variance, [K, D]."""

    def __getitem__(self, which: Any) -> "Moments":
        """Some of the sequences."""
        return Moments(self.unit[which], self.mean[which], self.variance[which])


def moments(x: NDArray[np.float32]) -> Moments:
    """Moments of sequences [K, T, D]."""
    x = np.ascontiguousarray(x.swapaxes(1, 2))
    mean = x.mean(axis=-1, keepdims=True)
    variance = x.var(axis=-1, mean=mean)
    unit = x.astype(np.float64)
    unit -= unit.mean(axis=-1, keepdims=True)
    length = np.sqrt(np.einsum("kdt,kdt->kd", unit, unit))
    unit /= np.where(length > 0, length, 1.0)[:, :, None]
    return Moments(unit, mean[:, :, 0], variance)


def concordance(pred: Moments, true: Moments) -> Array:
    """CCC of every prediction with every target in every channel, [D, K, M]; 0 where one of them never moves."""
    correlation = np.matmul(pred.unit.swapaxes(0, 1), true.unit.transpose(1, 2, 0))
    np.clip(correlation, -1, 1, out=correlation)
    p_mean, y_mean = pred.mean.T[:, :, None], true.mean.T[:, None]
    p_variance, y_variance = pred.variance.T[:, :, None], true.variance.T[:, None]
    below = y_variance + p_variance + (y_mean - p_mean) ** 2 + EPSILON
    return 2 * correlation * np.sqrt(y_variance) * np.sqrt(p_variance) / below


def moving(pred: Moments, true: Moments) -> NDArray[np.bool_]:
    """Where both move and a CCC means something, [D, K, M]."""
    p, y = ((one.unit != 0).any(axis=-1).T for one in (pred, true))
    return np.logical_and(p[:, :, None], y[:, None])


def mean_concordance(pred: Moments, true: Moments, skip_constant: bool = False) -> Array:
    """CCC averaged over channels, [K, M]; constant channels count 0, or are skipped (NaN where none is left)."""
    each = concordance(pred, true)
    if not skip_constant:
        return each.mean(axis=0)
    count = moving(pred, true).sum(axis=0)  # the CCC of the others is 0
    return np.where(count > 0, each.sum(axis=0) / np.maximum(count, 1), np.nan)
