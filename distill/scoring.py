"""Scores of the model and its rivals from per-session sums, and intervals over sessions.

One set of resampled sessions serves every system, so that differences are paired. Units that never vary, or are never
active, are skipped and counted, never scored as zero.
Shapes: S sessions, R resamples, A units, K sums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill import rivals
from distill.evidence import Case, Evidence
from dyad.metrics import agreement, bootstrap, classification

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
MODEL = "model"


@dataclass(frozen=True)
class Score:
    """A value with its 95 % interval over sessions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class System:
    """One row of the tables: macro scores by name, and per-unit CCC, Pearson, skill and MAE [A] by name."""

    macro: dict[str, Score]
    per_unit: dict[str, list[Score]]
    resampled: dict[str, Array]
    """Every resample's macro value, [R]: differences of two systems are taken draw by draw."""


def mean_defined(values: Array) -> Array:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, values, 0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def draws(sessions: int, resamples: int, seed: int) -> Array:
    """How often each session is drawn, [R, S]; none for a single session, which has no interval."""
    return bootstrap.resample_counts(sessions, resamples, seed) if sessions > 1 else np.zeros((0, sessions))


def session_sums(said: Sequence[Floats], true: Sequence[Floats], reference: Floats) -> Array:
    """Sums [S, A, 8] of one system over all sessions."""
    return np.stack([agreement.sums(p[: len(y)], y[: len(p)], reference) for p, y in zip(said, true, strict=True)])


def system(totals: Array, counts: Array, rare: Sequence[int]) -> System:
    """Scores of sums [S, A, 8] with the intervals of resamples `counts` [R, S]."""
    whole = _named(agreement.scores(totals.sum(axis=0)), rare)
    drawn = _named(agreement.scores(np.einsum("rs,sak->rak", counts, totals)), rare)
    per_unit = {
        name: [_score(whole[name][a], drawn[name][:, a]) for a in range(totals.shape[1])] for name in agreement_names()
    }
    resampled = {name: values for name, values in drawn.items() if name.startswith("macro")}
    return System({n: _score(whole[n], v) for n, v in resampled.items()}, per_unit, resampled)


def agreement_names() -> tuple[str, ...]:
    """Scores given per unit."""
    return ("ccc", "pearson", "skill", "mae")


def _named(scores: agreement.Scores, rare: Sequence[int]) -> dict[str, Array]:
    named: dict[str, Array] = {name: getattr(scores, name) for name in agreement_names()}
    macro = {f"macro_{name}": mean_defined(named[name]) for name in ("ccc", "pearson", "mae")}
    macro["macro_ccc_rare"] = mean_defined(named["ccc"][..., list(rare)])
    macro["macro_skill"] = scores.total_skill
    return named | macro


def _score(value: Array, resampled: Array) -> Score:
    return Score(float(value), *bootstrap.interval(resampled))


def difference(first: System, second: System, name: str) -> Score:
    """First minus second, paired by resample."""
    value = first.macro[name].value - second.macro[name].value
    return Score(value, *bootstrap.interval(first.resampled[name] - second.resampled[name]))


def at_horizon(evidence: Evidence, horizon: int, counts: Array, rare: Sequence[int], seed: int) -> dict[str, System]:
    """Model and rivals at one look-ahead."""
    true = [case.true(horizon) for case in evidence.cases]
    reference = np.nan_to_num(evidence.mean)
    column = evidence.horizons.index(horizon)
    said: dict[str, Sequence[Floats]] = {
        MODEL: [c.predicted.prob[: len(y), column] for c, y in zip(evidence.cases, true, strict=True)]
    }
    said |= rivals.curves(evidence, horizon, seed)
    return {name: system(session_sums(curves, true, reference), counts, rare) for name, curves in said.items()}


@dataclass(frozen=True)
class Bound:
    """How much of what any causal predictor could reach is reached, on the synthetic sessions that know it."""

    sessions: int
    skill: float
    ccc: float
    share_of_skill: Score
    share_of_ccc: Score


def bound(evidence: Evidence, horizon: int, sessions: int, listeners: int, resamples: int, seed: int) -> Bound | None:
    """The attainable bound on the first `sessions` cases with a truth file, and the model's share of it."""
    cases = [case for case in evidence.cases if case.truth is not None][:sessions]
    if not cases:
        return None
    true = [case.true(horizon) for case in cases]
    reference, column = np.nan_to_num(evidence.mean), evidence.horizons.index(horizon)
    counts = draws(len(cases), resamples, seed)
    best = system(
        session_sums(rivals.attainable(cases, evidence.au_names, horizon, listeners), true, reference), counts, ()
    )
    model = system(
        session_sums([c.predicted.prob[: len(y), column] for c, y in zip(cases, true, strict=True)], true, reference),
        counts,
        (),
    )
    shares = {}
    for name in ("macro_skill", "macro_ccc"):
        ratio = model.resampled[name] / np.where(best.resampled[name] > 1e-3, best.resampled[name], np.nan)
        shares[name] = Score(model.macro[name].value / best.macro[name].value, *bootstrap.interval(ratio))
    return Bound(
        sessions=len(cases),
        skill=best.macro["macro_skill"].value,
        ccc=best.macro["macro_ccc"].value,
        share_of_skill=shares["macro_skill"],
        share_of_ccc=shares["macro_ccc"],
    )


@dataclass(frozen=True)
class Activity:
    """Is the unit active: per unit F1 at its threshold and area under precision–recall, with their macro means."""

    thresholds: list[float]
    tuned_on: str
    f1: list[Score]
    auprc: list[float]
    base_rate: list[float]
    macro_f1: Score
    macro_auprc: Score
    defined: int


def activity(evidence: Evidence, horizon: int, counts: Array, seed: int) -> Activity:
    """Activation scores of the model; thresholds come from other sessions than those they are applied to."""
    column, units = evidence.horizons.index(horizon), len(evidence.au_names)
    said = [c.predicted.act_prob[: c.length - horizon, column] for c in evidence.cases]
    true = [c.active(horizon) for c in evidence.cases]
    folds, tuned_on = _thresholds(evidence, horizon, seed)
    hits = np.stack([_hits(p >= folds[i], y) for i, (p, y) in enumerate(zip(said, true, strict=True))])
    f1 = _f1(hits.sum(axis=0))
    f1_drawn = _f1(np.einsum("rs,sak->rak", counts, hits))
    area = _areas(said, true, np.ones(len(said)))
    area_drawn = np.array([_areas(said, true, c) for c in counts[:100]]).reshape(-1, units)
    rate = mean_defined(np.concatenate(true).T.astype(np.float64))
    return Activity(
        thresholds=[float(v) for v in folds.mean(axis=0)],
        tuned_on=tuned_on,
        f1=[_score(f1[a], f1_drawn[:, a]) for a in range(units)],
        auprc=[float(v) for v in area],
        base_rate=[float(v) for v in rate],
        macro_f1=_score(mean_defined(f1), mean_defined(f1_drawn)),
        macro_auprc=_score(mean_defined(area), mean_defined(area_drawn)),
        defined=int((~np.isnan(f1)).sum()),
    )


def _thresholds(evidence: Evidence, horizon: int, seed: int) -> tuple[Array, str]:
    """Threshold of every session and unit [S, A], and where they were tuned."""
    column, units = evidence.horizons.index(horizon), len(evidence.au_names)

    def best(cases: Sequence[Case]) -> Array:
        said = np.concatenate([c.predicted.act_prob[: c.length - horizon, column] for c in cases])
        true = np.concatenate([c.active(horizon) for c in cases])
        return np.array([classification.best_threshold(said[:, a], true[:, a]) for a in range(units)])

    count = len(evidence.cases)
    if evidence.tuning:
        return np.tile(best(evidence.tuning), (count, 1)), f"{len(evidence.tuning)} training sessions"
    if count == 1:
        return np.full((1, units), 0.5), "nothing: one session alone, 0.5 throughout"
    half = np.random.default_rng(seed).permutation(count) % 2
    made = np.zeros((count, units))
    for part in (0, 1):
        made[half == part] = best([c for c, h in zip(evidence.cases, half, strict=True) if h != part])
    return made, "the other half of the scored sessions"


def _hits(guess: NDArray[np.bool_], act: Floats) -> Array:
    """Counts [A, 3] of one session: right positives, positives, guesses."""
    known = ~np.isnan(act)
    wanted, given = known & (np.nan_to_num(act) > 0.5), known & guess
    return np.stack([(wanted & given).sum(axis=0), wanted.sum(axis=0), given.sum(axis=0)], axis=1).astype(np.float64)


def _f1(hits: Array) -> Array:
    """F1 of counts [..., A, 3]; NaN for units without positives."""
    right, wanted, given = np.moveaxis(hits, -1, 0)
    return np.where(wanted > 0, 2 * right / np.maximum(wanted + given, 1), np.nan)


def _areas(said: Sequence[Floats], true: Sequence[Floats], counts: Array) -> Array:
    """Area under precision–recall per unit [A] over sessions, each taken `counts` times."""
    drawn = [i for i, n in enumerate(counts) for _ in range(int(n))]
    p, y = np.concatenate([said[i] for i in drawn]), np.concatenate([true[i] for i in drawn])
    return np.array([classification.average_precision(p[:, a], y[:, a]) for a in range(p.shape[1])])


def goodness(evidence: Evidence, horizon: int) -> Array:
    """Summed skill of every session, [S]: tells the good ones from the bad."""
    column, reference = evidence.horizons.index(horizon), np.nan_to_num(evidence.mean)
    true = [case.true(horizon) for case in evidence.cases]
    said = [c.predicted.prob[: len(y), column] for c, y in zip(evidence.cases, true, strict=True)]
    return agreement.scores(session_sums(said, true, reference)).total_skill


def shown(systems: Mapping[str, System]) -> list[str]:
    """Systems in the order of the tables: the model, then its rivals."""
    return [MODEL, *(name for name in systems if name != MODEL)]
