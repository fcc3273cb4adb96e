"""Several reactions per speaker: are they diverse, appropriate, and as uncertain as they should be?

FRDiv, FRVar and FRDvs as the REACT challenge computes them, FRCorr, FRDist and FRSyn where the dataset says which
reactions are appropriate. All on our units at 30 frames per second and averaged over predictions: beside the rows of
the same table they mean something, beside a published table nothing (docs/metrics.md).
Shapes: S sessions, K draws, T frames, A units, R resamples.  CRPS: Gneiting & Raftery, 2007, in its fair form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distill import scoring
from distill.evidence import Evidence
from distill.movement import held
from distill.scoring import MODEL, Score
from dyad.clock import FPS
from dyad.metrics import react
from dyad.metrics.synchrony import synchrony
from student import stochastic

if TYPE_CHECKING:
    from distill.evaluate import Config

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
FRAMES = 25 * FPS
"""Frames of a session that are compared at most; the challenge has 750 too."""


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


@dataclass(frozen=True)
class Reactions:
    """Every row's REACT scores, and how good the model's draws are."""

    frames: int
    count: int
    """Draws of the model, 0 when none were asked for."""
    scores: dict[str, dict[str, float]]
    scored: int
    """Sessions behind FRCorr, FRDist and FRSyn; 0 where nobody says what is appropriate."""
    quality: Quality | None


def drawn_name(count: int) -> str:
    """Row of the model's draws."""
    return f"{MODEL}, {count} draws"


def head_of(evidence: Evidence, horizon: int) -> stochastic.Head:
    """Stochastic head of the predicted training sessions."""
    column = evidence.horizons.index(horizon)
    if not evidence.tuning:
        raise ValueError(
            "--samples needs predictions of training sessions, on which the stochastic head is fitted; give an engine "
            "or a checkpoint and a split other than train, or predict the training split into the same store"
        )
    said = [c.predicted.prob[: c.length - horizon, column] for c in evidence.tuning]
    return stochastic.fit(said, [c.true(horizon) for c in evidence.tuning])


def draws_of(evidence: Evidence, said: Sequence[Floats], head: stochastic.Head, config: "Config") -> list[Floats]:
    """Draws [K, T, A] around every session's curve; a session's are the same whichever others are scored."""
    made = []
    for case, prob in zip(evidence.cases, said, strict=True):
        made.append(
            stochastic.draw(
                head,
                prob,
                name=case.session.id,
                count=config.samples,
                seed=config.seed,
                temperature=config.temperature,
            )
        )
    return made


def reactions(
    evidence: Evidence,
    said: Mapping[str, Sequence[Floats]],
    draws: Sequence[Floats] | None,
    config: "Config",
    counts: Array,
) -> Reactions:
    """Score all rows, the model's and the baselines' draws among them."""
    rows: dict[str, Sequence[Floats]] = {name: [c[None] for c in curves] for name, curves in said.items()}
    if draws is not None:
        rows = {drawn_name(config.samples): draws} | rows
    for baseline in evidence.baselines:
        if baseline.draws is not None:
            cut = [d[:, config.horizon : c.length] for d, c in zip(baseline.draws, evidence.cases, strict=True)]
            rows[f"{baseline.name}, {cut[0].shape[0]} draws"] = cut
    frames = min(FRAMES, *(len(c) for c in said[MODEL]))
    units = [a for a, v in enumerate(evidence.rate) if np.isfinite(v)]
    stacked = {n: np.stack([_finite(d)[:, :frames, units] for d in row]) for n, row in rows.items()}
    scores = {
        n: {"frdiv": react.frdiv(p), "frvar": react.frvar(p), "frdvs": react.frdvs(p)} for n, p in stacked.items()
    }
    chosen = _appropriate(evidence, config.appropriate_sessions)
    if chosen:
        true = [_finite(c.true(config.horizon)[None])[0] for c in evidence.cases]
        target = np.stack([y[:frames][:, units] for y in true])
        for name, pred in stacked.items():
            scores[name] |= _appropriateness(evidence, pred[chosen], target[chosen], chosen, config.horizon, units)
    quality = _quality(evidence, said[MODEL], draws, config.horizon, counts) if draws is not None else None
    return Reactions(frames, config.samples, scores, len(chosen), quality)


def _finite(draws: Floats) -> Floats:
    return np.stack([held(one) for one in draws]) if np.isnan(draws).any() else draws


def _appropriate(evidence: Evidence, most: int) -> list[int]:
    return [] if evidence.appropriate is None else list(range(min(most, len(evidence.cases))))


def _appropriateness(
    evidence: Evidence, pred: Floats, target: Floats, chosen: list[int], horizon: int, units: list[int]
) -> dict[str, float]:
    """FRCorr, FRDist and, where the speakers are measured, FRSyn and what it should have been."""
    assert evidence.appropriate is not None
    neighbours = evidence.appropriate[np.ix_(chosen, chosen)]
    groups = ((0, len(units), 1 / len(units)),)
    made = {
        "frcorr": react.frcorr(pred, target, neighbours, per_prediction=True, skip_constant=True),
        "frdist": react.frdist(pred, target, neighbours, groups=groups, per_prediction=True),
    }
    speakers = [evidence.cases[i].speaker for i in chosen]
    if all(s is not None and len(s) >= horizon + pred.shape[2] for s in speakers):
        shown = np.stack([held(s[horizon:])[: pred.shape[2], units] for s in speakers if s is not None])
        found = synchrony(pred, shown, fps=FPS)
        made |= {"frsyn": float(np.abs(found.offset).mean()), "undefined": float(found.undefined.mean())}
    return made


def _quality(
    evidence: Evidence, said: Sequence[Floats], draws: Sequence[Floats], horizon: int, counts: Array
) -> Quality:
    """Ratios of sums over sessions, so that intervals over sessions are at hand."""
    true = [c.true(horizon) for c in evidence.cases]
    reference = np.nan_to_num(evidence.mean)
    sums = np.stack([_sums(d, p, y, reference) for d, p, y in zip(draws, said, true, strict=True)])
    found = _ratios(scoring.added(np.concatenate([np.ones((1, len(true))), counts]), sums))
    by_unit = found.pop("by_unit")[0]
    return Quality(
        variance_by_unit=[float(v) for v in by_unit], **{n: scoring.score(v[0], v[1:]) for n, v in found.items()}
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
