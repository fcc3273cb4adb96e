"""The challenge's scores as the published evaluation computes them: pair by pair, channel by channel, lag by lag."""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.metrics import react, synchrony

Floats = NDArray[np.float32]
MAX_LAG = 49


def plain_ccc(pred: Floats, true: Floats) -> float:
    """One `numpy.cov` per channel."""
    values = []
    for d in range(true.shape[1]):
        p, y = pred[:, d], true[:, d]
        covariance = np.cov(y, p)
        scale = np.sqrt(np.diag(covariance))
        r = np.clip(np.nan_to_num(covariance / scale[:, None] / scale[None]), -1, 1)[0, 1]
        gap = np.mean(y) - np.mean(p)
        values.append(2 * r * np.std(y) * np.std(p) / (np.var(y) + np.var(p) + gap**2 + 1e-8))
    return float(np.mean(values))


def plain_offset(pred: Floats, speaker: Floats) -> int:
    """One `numpy.corrcoef` per lag and channel."""
    curve = []
    for lag in range(-MAX_LAG, MAX_LAG + 1):
        a, b = (pred[:lag], speaker[-lag:]) if lag < 0 else (pred[lag:], speaker[: len(speaker) - lag])
        r = [float(np.corrcoef(a[:, d], b[:, d])[0, 1]) for d in range(a.shape[1])]
        curve.append(synchrony.float32_mean(r))
    return MAX_LAG - int(np.argmax(curve))


def double_loop(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Time warping as in the textbook."""
    path = np.full((len(x) + 1, len(y) + 1), np.inf)
    path[0, 0] = 0.0
    for i in range(len(x)):
        for j in range(len(y)):
            cost = 0.0
            for d in range(x.shape[1]):
                cost += (x[i, d] - y[j, d]) ** 2
            path[i + 1, j + 1] = cost + min(path[i, j], path[i, j + 1], path[i + 1, j])
    return path[-1, -1] ** 0.5


def plain_dtw() -> tuple[str, Callable[[Any, Any], float]]:
    """Name and function of the time warping to compare with."""
    if importlib.util.find_spec("tslearn"):
        metrics = importlib.import_module("tslearn.metrics")
        return f"tslearn {importlib.metadata.version('tslearn')}", metrics.dtw
    if importlib.util.find_spec("numba"):
        return "double loop, numba", importlib.import_module("numba").njit(double_loop)
    return "double loop, Python", double_loop


def plain_distance(dtw: Callable[[Any, Any], float], pred: Floats, true: Floats) -> float:
    """Weighted sum over the three groups of channels."""
    return sum(weight * dtw(pred[:, first:end], true[:, first:end]) for first, end, weight in react.GROUPS)
