"""Scores of the model and its rivals from per-session sums, and intervals over sessions.

One set of resampled recordings serves every row, so that differences are paired. Units that never vary, or are never
active, are skipped and counted, never scored as zero.
Shapes: S sessions, R resamples, A units, K sums.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distill import rivals
from distill.evidence import Evidence
from dyad.action_units import RARE
from dyad.metrics import agreement
from dyad.metrics.bootstrap import ANYTHING, Bounds, Resampling
from dyad.metrics.units import frequency_groups

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Groups = Mapping[str, Sequence[int]]
MODEL = "model"
UNIT: Bounds = (0.0, 1.0)
SIGNED: Bounds = (-1.0, 1.0)
POSITIVE: Bounds = (0.0, math.inf)
SKILL: Bounds = (-math.inf, 1.0)
RANGES: dict[str, Bounds] = {"ccc": SIGNED, "pearson": SIGNED, "skill": SKILL, "mae": POSITIVE, "rmse": POSITIVE}
RANGES |= dict.fromkeys(("f1", "precision", "recall", "auprc", "event_f1", "ece"), UNIT)
"""Beyond which no interval reaches."""


@dataclass(frozen=True)
class Score:
    """A value with its 95 % interval over sessions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class System:
    """One row of a table: scores by name."""

    macro: dict[str, Score]
    """Means over the units that have the score; `macro_skill` sums squared errors over units instead."""
    defined: dict[str, int]
    """How many units that was, by the same names."""
    groups: dict[str, dict[str, Score]]
    """The same of the units active often, sometimes and seldom."""
    per_unit: dict[str, list[Score]]
    resampled: dict[str, Array] = field(repr=False)
    """Every resample's macro value, [R]: differences of two rows are taken draw by draw."""
    resampled_units: dict[str, Array] = field(repr=False)
    """The same unit by unit, [R, A]."""


def mean_defined(values: Array) -> Array:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, values, 0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def added(counts: Array, values: Array) -> Array:
    """Sums [R, …] of sessions' values [S, …], each session as often as `counts` [R, S] says."""
    return np.tensordot(counts, values, axes=1).astype(np.float64, copy=False)


def groups_of(evidence: Evidence) -> dict[str, list[int]]:
    """Units that training listeners show often, sometimes, seldom; and those known to be rare."""
    by_frequency = frequency_groups(evidence.rate.astype(np.float64))
    return by_frequency | {"rare": [a for a, unit in enumerate(evidence.au_names) if unit in RARE]}


def system(values: Mapping[str, Array], drawn: Mapping[str, Array], groups: Groups, over: Resampling) -> System:
    """A row from scores per unit [A] and those of every resample [R, A]."""

    def of(name: str, units: Sequence[int] | slice) -> Score:
        return score(mean_defined(values[name][units]), mean_defined(drawn[name][:, units]), over, RANGES[name])

    return System(
        macro={f"macro_{name}": of(name, slice(None)) for name in values},
        defined={f"macro_{name}": int((~np.isnan(v)).sum()) for name, v in values.items()},
        groups={group: {n: of(n, list(units)) for n in values} for group, units in groups.items()},
        per_unit={n: [of(n, [a]) for a in range(len(v))] for n, v in values.items()},
        resampled={f"macro_{name}": mean_defined(v) for name, v in drawn.items()},
        resampled_units=dict(drawn),
    )


def score(value: Array | float, resampled: Array, over: Resampling, bounds: Bounds = ANYTHING) -> Score:
    """A value and its interval."""
    return Score(float(value), *over.interval(float(value), resampled, bounds))


def difference(first: float, second: float, drawn: tuple[Array, Array], over: Resampling) -> Score:
    """First minus second, paired by resample."""
    return score(first - second, drawn[0] - drawn[1], over)


def differences(first: System, second: System, over: Resampling) -> dict[str, Score]:
    """Every macro score that both have: first minus second."""
    return {
        n: difference(one.value, second.macro[n].value, (first.resampled[n], second.resampled[n]), over)
        for n, one in first.macro.items()
        if n in second.macro
    }


def unit_differences(first: System, second: System, over: Resampling) -> dict[str, list[Score]]:
    """The same unit by unit."""
    made: dict[str, list[Score]] = {}
    for name, scores in first.per_unit.items():
        one, two = (row.resampled_units[name] for row in (first, second))
        pairs = enumerate(zip(scores, second.per_unit[name], strict=True))
        made[name] = [difference(x.value, y.value, (one[:, a], two[:, a]), over) for a, (x, y) in pairs]
    return made


AGREEMENT = ("ccc", "pearson", "skill", "mae", "rmse")
"""Scores of intensity, given per unit."""


def session_sums(said: Sequence[Floats], true: Sequence[Floats], reference: Floats) -> Array:
    """Sums [S, A, 8] of one row over all sessions."""
    return np.stack([agreement.sums(p[: len(y)], y[: len(p)], reference) for p, y in zip(said, true, strict=True)])


def agreement_system(totals: Array, over: Resampling, groups: Groups) -> System:
    """How well a curve follows: scores of sums [S, A, 8] with their intervals."""
    whole = agreement.scores(totals.sum(axis=0))
    drawn = agreement.scores(np.einsum("rs,sak->rak", over.counts, totals))
    made = system({n: getattr(whole, n) for n in AGREEMENT}, {n: getattr(drawn, n) for n in AGREEMENT}, groups, over)
    # Skill of all units together is not the mean of the units' skills: a still unit's would drown the others.
    made.macro["macro_skill"], made.resampled["macro_skill"] = (
        score(whole.total_skill, drawn.total_skill, over, SKILL),
        drawn.total_skill,
    )
    if "rare" in groups:
        rare = mean_defined(drawn.ccc[:, list(groups["rare"])])
        made.macro["macro_ccc_rare"], made.resampled["macro_ccc_rare"] = made.groups["rare"]["ccc"], rare
        made.defined["macro_ccc_rare"] = int((~np.isnan(whole.ccc[list(groups["rare"])])).sum())
    return made


def curves(evidence: Evidence, horizon: int, seed: int) -> dict[str, list[Floats]]:
    """Curves of the model and of all that stands beside it at one look-ahead."""
    column = evidence.horizons.index(horizon)
    model = [c.predicted.prob[: c.length - horizon, column] for c in evidence.cases]
    return {MODEL: model} | rivals.curves(evidence, horizon, seed)


def at_horizon(
    evidence: Evidence, said: Mapping[str, Sequence[Floats]], horizon: int, over: Resampling
) -> dict[str, System]:
    """Agreement of every row with the truth at one look-ahead."""
    true = [case.true(horizon) for case in evidence.cases]
    reference, groups = np.nan_to_num(evidence.mean), groups_of(evidence)
    return {n: agreement_system(session_sums(c, true, reference), over, groups) for n, c in said.items()}


def goodness(evidence: Evidence, horizon: int) -> Array:
    """Summed skill of every session, [S]: tells the good ones from the bad."""
    column, reference = evidence.horizons.index(horizon), np.nan_to_num(evidence.mean)
    true = [case.true(horizon) for case in evidence.cases]
    said = [c.predicted.prob[: len(y), column] for c, y in zip(evidence.cases, true, strict=True)]
    return agreement.scores(session_sums(said, true, reference)).total_skill
