"""The draws around a prediction: do they hold what listeners did?

Shapes: S sessions, K draws, T frames, A units, R resamples.  CRPS: Gneiting & Raftery, 2007, in its fair form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill import scoring
from distill.evidence import Evidence
from distill.scoring import POSITIVE, SKILL, Score
from dyad.metrics.bootstrap import Resampling

Array = NDArray[np.float64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Quality:
    """Do the draws hold what listeners did? On the scored sessions."""

    variance_ratio: Score
    """Variance of the draws over that of the truth, all units; 1 is wanted."""
    variance_by_unit: list[float]
    within_ratio: Score
    """The same of the variance within sessions."""
    speed_ratio: Score
    """Mean speed of the draws over the truth's."""
    crps: Score
    """Continuous ranked probability score, mean over units; less is better."""
    mae: Score
    """Mean absolute error of the deterministic prediction, which is the CRPS of a single curve."""
    skill: Score
    """Of the deterministic prediction."""
    skill_of_mean: Score
    """Of the mean of the draws, less the noise that so few draws leave in it."""


def quality(
    evidence: Evidence, said: Sequence[Floats], draws: Sequence[Floats], horizon: int, over: Resampling
) -> Quality:
    """Score the draws [K, T, A] of every session, by ratios of sums over sessions: so intervals are at hand."""
    true = [c.true(horizon) for c in evidence.cases]
    reference = np.nan_to_num(evidence.mean)
    sums = np.stack([_sums(d, p, y, reference) for d, p, y in zip(draws, said, true, strict=True)])
    found = _ratios(scoring.added(np.concatenate([np.ones((1, len(true))), over.counts]), sums))
    by_unit = found.pop("by_unit")[0]
    return Quality(
        variance_by_unit=[float(v) for v in by_unit],
        **{n: scoring.score(v[0], v[1:], over, SKILL if "skill" in n else POSITIVE) for n, v in found.items()},
    )


def _sums(draws: Floats, said: Floats, true: Floats, reference: Floats) -> Array:
    """Sums [A, 14] of one session over its annotated frames."""
    known = ~np.isnan(true)
    x, p, y = draws.astype(np.float64), said.astype(np.float64), np.where(known, true, 0).astype(np.float64)
    n, count = len(x), known.sum(axis=0)

    def total(values: Array) -> Array:
        return np.where(known, values, 0).sum(axis=0)

    gap, spread = np.abs(x - y).mean(axis=0), _half_gap(x)
    mean, noise = x.mean(axis=0), x.var(axis=0, ddof=1) / n if n > 1 else np.zeros(y.shape)
    within_x = np.stack([total(one * one) - total(one) ** 2 / np.maximum(count, 1) for one in x]).mean(axis=0)
    within_y = total(y * y) - total(y) ** 2 / np.maximum(count, 1)
    both = known[1:] & known[:-1]
    steps_x = np.where(both, np.abs(np.diff(x, axis=1)).mean(axis=0), 0).sum(axis=0)
    steps_y = np.where(both, np.abs(np.diff(y, axis=0)), 0).sum(axis=0)
    columns = (count, total(y), total(y * y), total(mean), total((x * x).mean(axis=0)), within_x, within_y, steps_x,
               steps_y, total(gap - spread), total(np.abs(p - y)), total((p - y) ** 2),
               total((mean - y) ** 2 - noise), total((reference - y) ** 2))  # fmt: skip
    return np.stack(columns, axis=1)


def _half_gap(x: Array) -> Array:
    """Half the mean distance of two different draws, [T, A]."""
    k = len(x)
    if k == 1:
        return np.zeros(x.shape[1:])
    weights = (2 * np.arange(k) - k + 1)[:, None, None]
    return (weights * np.sort(x, axis=0)).sum(axis=0) / (k * (k - 1))


def _ratios(sums: Array) -> dict[str, Array]:
    """What `Quality` holds, of sums [R, A, 14]; each [R] but `by_unit` [R, A]."""
    n, y, yy, x, xx, within_x, within_y, steps_x, steps_y, *errors = np.moveaxis(sums, -1, 0)
    crps, mae, error, error_of_mean, against = errors
    many = np.maximum(n, 1)
    variance_x, variance_y = xx / many - (x / many) ** 2, yy / many - (y / many) ** 2

    def ratio(a: Array, b: Array) -> Array:
        return np.where(b > 1e-12, a / np.maximum(b, 1e-12), np.nan)

    return {
        "by_unit": ratio(variance_x, variance_y),
        "variance_ratio": ratio(variance_x.sum(axis=-1), variance_y.sum(axis=-1)),
        "within_ratio": ratio(within_x.sum(axis=-1), within_y.sum(axis=-1)),
        "speed_ratio": ratio(steps_x.sum(axis=-1), steps_y.sum(axis=-1)),
        "crps": scoring.mean_defined(ratio(crps, n)),
        "mae": scoring.mean_defined(ratio(mae, n)),
        "skill": 1 - ratio(error.sum(axis=-1), against.sum(axis=-1)),
        "skill_of_mean": 1 - ratio(error_of_mean.sum(axis=-1), against.sum(axis=-1)),
    }
