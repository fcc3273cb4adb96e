"""How well a predicted curve follows the true one: CCC, Pearson, MAE and skill, from sums that add up over sessions.

Scores of many sessions, and of every bootstrap resample of them, come from the same eight sums per session and unit;
nothing is computed twice. Cells without a label (NaN) are left out, a prediction that is not finite is refused. A unit
that never varies has no CCC: it is NaN, and `macro` says how many units it could use.
Sums of squares lose the digits of what hardly moves, so values are counted from the reference, which lies among them:
nine digits are kept where a unit's mean is within a thousand standard deviations of it.
Shapes: T frames, A units, S sessions.  CCC: Lin, 1989.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyad.metrics.checks import Numbers, labelled

Array = NDArray[np.float64]
ROUNDING = 1e-12
"""A variance of this share of the mean square, or less, is what rounding leaves of a constant."""


def sums(
    pred: Numbers,
    true: Numbers,
    reference: Numbers,
    *,
    session: str = "the scored frames",
    units: Sequence[str] | None = None,
) -> Array:
    """Sums [A, 8] of one session over the frames where `true` [T, A] is annotated.

    Columns: n, Σp, Σy, Σp², Σy², Σpy, Σ|p-y|, Σ(r-y)² with `reference` [A] or [T, A] the predictor that skill is
    measured against (usually the training mean). Where it is [A], p and y are counted from it: add up only sums of one
    reference. Raises ValueError naming session, unit and frame of a prediction or label that is infinite, or NaN.
    """
    known = labelled(pred, true, session=session, channels=units)
    p, y, r = (v.astype(np.float64) for v in (pred, true, reference))
    r = np.broadcast_to(r, y.shape)
    origin = np.nan_to_num(r) if reference.ndim == 1 else 0.0
    p, y, r = (np.where(known, v - origin, 0.0) for v in (p, y, r))
    parts = (known.astype(np.float64), p, y, p * p, y * y, p * y, np.abs(p - y), (r - y) ** 2)
    # Along the last axis numpy adds in pairs, whose rounding does not grow with the number of frames.
    return np.ascontiguousarray(np.stack(parts).transpose(2, 0, 1)).sum(axis=-1)


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
        varies = vy > ROUNDING * yy / n
        ccc = np.where(varies, 2 * cov / (vp + vy + (mp - my) ** 2), np.nan)
        pearson = np.where(varies & (vp > ROUNDING * pp / n), cov / np.sqrt(vp) / np.sqrt(vy), np.nan)
        squared = np.maximum(pp - 2 * py + yy, 0)
        skill = np.where(varies, 1 - squared / ref, np.nan)
        total = 1 - squared.sum(axis=-1) / ref.sum(axis=-1)
        return Scores(ccc, pearson, ae / n, np.sqrt(squared / n), skill, total)


def macro(values: Array) -> tuple[float, int]:
    """Mean over the units that are defined, and how many they are."""
    known = values[~np.isnan(values)]
    return (float(known.mean()) if len(known) else float("nan")), len(known)


def ccc(pred: Numbers, true: Numbers) -> Array:
    """Concordance per unit [A] of two curves [T, A]."""
    known = labelled(pred, true)
    mean = np.where(known, true, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(known.sum(axis=0), 1)
    return scores(sums(pred, true, mean)).ccc
