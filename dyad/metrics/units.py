"""Every score of every action unit: is it active, how strong is it, when does it fire; then means over units.

Thresholds are an argument: tune them with `tune_thresholds` on validation sessions, never on the ones that are scored.
Curves are compared about their means, in float64, so that a unit that hardly moves keeps its digits. A unit for which a
score is undefined has NaN; `macro` leaves it out and says how many units it could use.
Shapes: N frames of one or several sessions, A units.  Sources: the system's requirements, "AU prediction".
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.metrics import calibration, classification, events
from dyad.metrics.agreement import macro
from dyad.metrics.checks import labelled, require_finite, require_probabilities

Array = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]]
HIGH, LOW = 0.2, 0.05
"""Units active in this share of frames or more are frequent, in less than the second rare."""


@dataclass(frozen=True)
class UnitScores:
    """Scores per unit, each [A]; NaN where undefined."""

    f1: Array
    precision: Array
    recall: Array
    auprc: Array
    """Area under precision and recall; the base rate for a guesser."""
    ece: Array
    """Expected calibration error, ten bins."""
    event_f1: Array
    mae: Array
    rmse: Array
    pearson: Array
    ccc: Array
    rate: Array
    """Share of labelled frames in which the unit is active."""

    def macro(self) -> dict[str, tuple[float, int]]:
        """Mean over the units that are defined, and how many they are, by score."""
        return {f.name: macro(getattr(self, f.name)) for f in fields(self)}

    def by_frequency(
        self, rate: Array | None = None, *, high: float = HIGH, low: float = LOW
    ) -> dict[str, dict[str, tuple[float, int]]]:
        """`macro` of the units of high, middle and low activation frequency.

        Give the training split's `rate` [A], so that every evaluation has the same groups; else the scored frames' own.
        """
        groups = frequency_groups(self.rate if rate is None else rate, high, low)
        return {name: _part(self, units).macro() for name, units in groups.items()}


def _part(scores: UnitScores, units: Sequence[int]) -> UnitScores:
    return UnitScores(**{f.name: getattr(scores, f.name)[list(units)] for f in fields(scores)})


def frequency_groups(rate: Array, high: float = HIGH, low: float = LOW) -> dict[str, list[int]]:
    """Units by how often they are active; take `rate` [A] from the training split. NaN rates are in no group."""
    if not 0 <= low <= high <= 1:
        raise ValueError(f"0 ≤ low ≤ high ≤ 1 is needed; got low={low}, high={high}; both are shares of frames")
    return {
        "high": [int(a) for a in np.flatnonzero(rate >= high)],
        "mid": [int(a) for a in np.flatnonzero((rate >= low) & (rate < high))],
        "low": [int(a) for a in np.flatnonzero(rate < low)],
    }


def tune_thresholds(
    prob: Numbers, act: Numbers, *, session: str = "the tuning frames", units: Sequence[str] | None = None
) -> Array:
    """Threshold of highest F1 per unit [A] from validation frames [N, A]; 0.5 for a unit without positives."""
    labelled(prob, act, session=session, channels=units, what="probability")
    return np.array([classification.best_threshold(p, y) for p, y in zip(prob.T, act.T, strict=True)])


def unit_scores(
    act_prob: Numbers,
    act: Numbers,
    prob: Numbers,
    true: Numbers,
    thresholds: Array,
    *,
    tolerance_frames: int = 5,
    session_ends: Sequence[int] = (),
    session_ids: Sequence[str] = (),
    session: str = "the scored frames",
    units: Sequence[str] | None = None,
) -> UnitScores:
    """All scores of predicted activation `act_prob` and intensity `prob` [N, A].

    `act` (0, 1) and `true` are the labels, NaN where there are none. `session_ends` are the indices after the last
    frame of each session when several lie one after the other, so that no event spans two, and `session_ids` their
    names. A prediction that is not finite, or no probability, is refused by session, unit and frame of that session.
    """
    _require_shapes(act_prob, act, prob, true, thresholds, units)
    for name, at in _sessions(len(act), session_ends, session_ids, session):
        require_probabilities(act_prob[at], session=name, channels=units, what="activation probability")
        require_finite(prob[at], session=name, channels=units)
        for labels in (act[at], true[at]):
            require_finite(labels, session=name, channels=units, what="label", scored=~np.isnan(labels))
    columns = [
        (*_activity(act_prob[:, a], act[:, a], float(thresholds[a]), tolerance_frames, session_ends),
         *agreement_of(prob[:, a], true[:, a]), _rate(act[:, a]))
        for a in range(act.shape[1])
    ]  # fmt: skip
    return UnitScores(*np.array(columns, np.float64).T)


def _require_shapes(
    act_prob: Numbers, act: Numbers, prob: Numbers, true: Numbers, thresholds: Array, units: Sequence[str] | None
) -> None:
    shapes = [list(x.shape) for x in (act_prob, act, prob, true)]
    count = act_prob.shape[-1] if act_prob.ndim == 2 else 0
    if not count or any(s != shapes[0] for s in shapes):
        raise ValueError(
            f"act_prob, act, prob and true [N, A] of one shape are needed; got {', '.join(map(str, shapes))}; "
            "cut all to the same frames and units first"
        )
    if thresholds.shape != (count,) or (units is not None and len(units) != count):
        named = "" if units is None else f" and {len(units)} names"
        raise ValueError(f"thresholds [{count}] are needed, one per unit; got {list(thresholds.shape)}{named}")


def _sessions(frames: int, ends: Sequence[int], ids: Sequence[str], whole: str) -> list[tuple[str, slice]]:
    """Name and frames of every session; without names their numbers."""
    edges = [0, *ends, *([frames] if not ends or ends[-1] != frames else [])]
    if any(a > b for a, b in pairwise(edges)):
        raise ValueError(f"session_ends that rise from 0 to {frames}, the frames there are, are needed; got {ends}")
    parts = len(edges) - 1
    if ids and len(ids) != parts:
        raise ValueError(f"session_ids: one name for each of {parts} sessions is needed; got {len(ids)}")
    names = ids or ([whole] if parts == 1 else [f"session {i} of {whole}" for i in range(parts)])
    return [(name, slice(a, b)) for name, (a, b) in zip(names, pairwise(edges), strict=True)]


def _activity(p: Numbers, y: Numbers, threshold: float, tolerance: int, ends: Sequence[int]) -> tuple[float, ...]:
    """F1, precision, recall, AUPRC, ECE and event F1 of one unit."""
    pieces = zip(np.split(p, list(ends)), np.split(y, list(ends)), strict=True)
    found = [events.event_scores(said >= threshold, was, tolerance) for said, was in pieces if len(said)]
    counted = events.combine([(e.matched, e.guessed, e.true) for e in found])
    return (
        classification.f1(p, y, threshold),
        classification.precision(p, y, threshold),
        classification.recall(p, y, threshold),
        classification.average_precision(p, y),
        calibration.expected_error(p, y),
        counted.f1,
    )


def agreement_of(pred: Numbers, true: Numbers) -> tuple[float, float, float, float]:
    """MAE, RMSE, Pearson's r and CCC of one curve [N]; NaN labels are left out.

    Pearson needs both curves to vary, CCC the true one; else they are NaN.
    """
    known = labelled(pred, true)
    p, y = pred[known].astype(np.float64), true[known].astype(np.float64)
    nan = float("nan")
    if not len(y):
        return nan, nan, nan, nan
    gap, dp, dy = p - y, p - p.mean(), y - y.mean()
    shared, vp, vy = float(np.mean(dp * dy)), float(np.mean(dp**2)), float(np.mean(dy**2))
    # Rounding leaves a constant some variance: what does not vary is told by its values.
    p_varies, y_varies = bool((p != p[0]).any()), bool((y != y[0]).any())
    pearson = ccc = nan
    if p_varies and y_varies:
        pearson = float(np.clip(shared / np.sqrt(vp) / np.sqrt(vy), -1, 1))
    if y_varies:
        ccc = 2 * shared / (vp + vy + float(p.mean() - y.mean()) ** 2) if p_varies else 0.0
    return float(np.abs(gap).mean()), float(np.sqrt(np.mean(gap * gap))), pearson, ccc


def _rate(act: Numbers) -> float:
    known = act[~np.isnan(act)]
    return float((known > 0.5).mean()) if len(known) else float("nan")
