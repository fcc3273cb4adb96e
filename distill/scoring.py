"""Scores of the model and its rivals from per-session sums, and intervals over sessions.

One set of resampled sessions serves every row, so that differences are paired. Units that never vary, or are never
active, are skipped and counted, never scored as zero.
Shapes: S sessions, R resamples, A units, K sums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill import rivals
from distill.evidence import Evidence
from dyad.action_units import RARE
from dyad.metrics import agreement, bootstrap
from dyad.metrics.units import frequency_groups

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Groups = Mapping[str, Sequence[int]]
MODEL = "model"


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
    resampled: dict[str, Array]
    """Every resample's macro value, [R]: differences of two rows are taken draw by draw."""


def mean_defined(values: Array) -> Array:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, values, 0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def draws(sessions: int, resamples: int, seed: int) -> Array:
    """How often each session is drawn, [R, S]; none for a single session, which has no interval."""
    return bootstrap.resample_counts(sessions, resamples, seed) if sessions > 1 else np.zeros((0, sessions))


def added(counts: Array, values: Array) -> Array:
    """Sums [R, …] of sessions' values [S, …], each session as often as `counts` [R, S] says."""
    return np.tensordot(counts, values, axes=1).astype(np.float64, copy=False)


def groups_of(evidence: Evidence) -> dict[str, list[int]]:
    """Units that training listeners show often, sometimes, seldom; and those known to be rare."""
    by_frequency = frequency_groups(evidence.rate.astype(np.float64))
    return by_frequency | {"rare": [a for a, unit in enumerate(evidence.au_names) if unit in RARE]}


def system(values: Mapping[str, Array], drawn: Mapping[str, Array], groups: Groups) -> System:
    """A row from scores per unit [A] and those of every resample [R, A]."""
    macro = {f"macro_{name}": score(mean_defined(v), mean_defined(drawn[name])) for name, v in values.items()}
    resampled = {f"macro_{name}": mean_defined(v) for name, v in drawn.items()}
    parts = {
        group: {n: score(mean_defined(v[of]), mean_defined(drawn[n][:, of])) for n, v in values.items()}
        for group, of in ((g, list(units)) for g, units in groups.items())
    }
    per_unit = {n: [score(v[a], drawn[n][:, a]) for a in range(len(v))] for n, v in values.items()}
    defined = {f"macro_{name}": int((~np.isnan(v)).sum()) for name, v in values.items()}
    return System(macro, defined, parts, per_unit, resampled)


def score(value: Array | float, resampled: Array) -> Score:
    """A value and the interval of its resamples."""
    return Score(float(value), *bootstrap.interval(resampled))


def difference(first: System, second: System, name: str) -> Score:
    """First minus second, paired by resample."""
    value = first.macro[name].value - second.macro[name].value
    return Score(value, *bootstrap.interval(first.resampled[name] - second.resampled[name]))


AGREEMENT = ("ccc", "pearson", "skill", "mae", "rmse")
"""Scores of intensity, given per unit."""


def session_sums(said: Sequence[Floats], true: Sequence[Floats], reference: Floats) -> Array:
    """Sums [S, A, 8] of one row over all sessions."""
    return np.stack([agreement.sums(p[: len(y)], y[: len(p)], reference) for p, y in zip(said, true, strict=True)])


def agreement_system(totals: Array, counts: Array, groups: Groups) -> System:
    """How well a curve follows: scores of sums [S, A, 8] with the intervals of resamples `counts` [R, S]."""
    whole = agreement.scores(totals.sum(axis=0))
    drawn = agreement.scores(np.einsum("rs,sak->rak", counts, totals))
    made = system({n: getattr(whole, n) for n in AGREEMENT}, {n: getattr(drawn, n) for n in AGREEMENT}, groups)
    # Skill of all units together is not the mean of the units' skills: a still unit's would drown the others.
    made.macro["macro_skill"], made.resampled["macro_skill"] = (
        score(whole.total_skill, drawn.total_skill),
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
    evidence: Evidence, said: Mapping[str, Sequence[Floats]], horizon: int, counts: Array
) -> dict[str, System]:
    """Agreement of every row with the truth at one look-ahead."""
    true = [case.true(horizon) for case in evidence.cases]
    reference, groups = np.nan_to_num(evidence.mean), groups_of(evidence)
    return {n: agreement_system(session_sums(c, true, reference), counts, groups) for n, c in said.items()}


def goodness(evidence: Evidence, horizon: int) -> Array:
    """Summed skill of every session, [S]: tells the good ones from the bad."""
    column, reference = evidence.horizons.index(horizon), np.nan_to_num(evidence.mean)
    true = [case.true(horizon) for case in evidence.cases]
    said = [c.predicted.prob[: len(y), column] for c, y in zip(evidence.cases, true, strict=True)]
    return agreement.scores(session_sums(said, true, reference)).total_skill
