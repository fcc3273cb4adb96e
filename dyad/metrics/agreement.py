"""How well a predicted curve follows the true one: CCC, Pearson, MAE and skill, from sums that add up over sessions.

Scores of many sessions, and of every bootstrap resample of them, come from the same eight sums per session and unit;
nothing is computed twice. NaN cells are left out. A unit that never varies has no CCC: it is NaN, and `macro` says how
many units it could use.
Shapes: T frames, A units, S sessions.  CCC: Lin, 1989.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sums(pred: NDArray[np.float32], true: NDArray[np.float32], reference: NDArray[np.float32]) -> Array:
    """Sums [A, 8] of one session over the frames where `true` [T, A] is annotated.

    Columns: n, Σp, Σy, Σp², Σy², Σpy, Σ|p-y|, Σ(r-y)² with `reference` [A] or [T, A] the predictor that skill is
    measured against (usually the training mean).
    """
    p, y = pred.astype(np.float64), true.astype(np.float64)
    r = np.broadcast_to(reference.astype(np.float64), y.shape)
    known = ~np.isnan(y)
    p, y, r = (np.where(known, v, 0.0) for v in (p, y, r))
    parts = (known.astype(np.float64), p, y, p * p, y * y, p * y, np.abs(p - y), (r - y) ** 2)
    return np.stack([v.sum(axis=0) for v in parts], axis=1)


@dataclass(frozen=True)
class Scores:
    """Scores per unit, each [..., A]."""

    ccc: Array
    pearson: Array
    mae: Array
    rmse: Array
    skill: Array
    """1 - MSE / MSE of the reference; 1 is perfect, 0 no better than the reference."""
    total_skill: Array
    """The same with squared errors summed over units, [...]."""


def scores(totals: Array) -> Scores:
    """Scores of sums [..., A, 8], added over any set of sessions."""
    n, p, y, pp, yy, py, ae, ref = np.moveaxis(totals, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mp, my = p / n, y / n
        vp, vy, cov = np.maximum(pp / n - mp**2, 0), np.maximum(yy / n - my**2, 0), py / n - mp * my
        varies = vy > 1e-12
        ccc = np.where(varies, 2 * cov / (vp + vy + (mp - my) ** 2), np.nan)
        pearson = np.where(varies & (vp > 1e-12), cov / np.sqrt(vp * vy), np.nan)
        squared = np.maximum(pp - 2 * py + yy, 0)
        skill = np.where(varies, 1 - squared / ref, np.nan)
        total = 1 - squared.sum(axis=-1) / ref.sum(axis=-1)
        return Scores(ccc, pearson, ae / n, np.sqrt(squared / n), skill, total)


def macro(values: Array) -> tuple[float, int]:
    """Mean over the units that are defined, and how many they are."""
    known = values[~np.isnan(values)]
    return (float(known.mean()) if len(known) else float("nan")), len(known)


def ccc(pred: NDArray[np.float32], true: NDArray[np.float32]) -> Array:
    """Concordance per unit [A] of two curves [T, A]."""
    return scores(sums(pred, true, np.zeros(true.shape[1], np.float32))).ccc
