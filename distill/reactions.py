"""Several reactions per speaker: are they diverse, and are they appropriate?

FRDiv, FRVar, FRDvs, FRCorr and FRDist as the REACT challenge computes them, FRSyn where the speakers are measured. The
dataset says which reactions are appropriate; where it does not, a listener's own is. All on our units at 30 frames per
second and averaged over predictions: beside the rows of the same table they mean something, beside a published table
nothing (docs/metrics.md).
Shapes: S sessions, K draws, T frames, A units, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distill import closeness, quality, rivals
from distill.evidence import Evidence
from distill.movement import held, over_sessions
from distill.quality import Quality
from distill.scoring import MODEL
from dyad.clock import FPS
from dyad.metrics.bootstrap import Resampling
from dyad.metrics.checks import neighbours_of
from student import stochastic

if TYPE_CHECKING:
    from distill.evaluate import Config

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
FRAMES = 25 * FPS
"""Frames of a session that are compared at most; the challenge has 750 too."""


@dataclass(frozen=True)
class Reactions:
    """Every row's REACT scores, and how good the model's draws are."""

    frames: tuple[int, int]
    """Of the shortest and the longest session, as far as it is compared."""
    count: int
    """Draws of the model, 0 when none were asked for."""
    scores: dict[str, dict[str, float]]
    scored: int
    """Sessions behind FRCorr and FRDist."""
    followed: int
    """Sessions behind FRSyn: their speakers are measured, and they are long enough."""
    own_alone: bool
    """Nobody says what is appropriate: FRCorr and FRDist compare with the listener's own reaction (identity matrix)."""
    quality: Quality | None
    resampled: dict[str, dict[str, Array]] = field(repr=False)
    """Every resample of the scores that are means over sessions, [R]."""


def drawn_name(count: int) -> str:
    """Row of the model's draws."""
    return f"{MODEL}, {count} draws"


def head_of(evidence: Evidence, horizon: int) -> stochastic.Head:
    """Stochastic head of the predicted training sessions."""
    column = evidence.horizons.index(horizon)
    if not evidence.fitting:
        raise ValueError(
            "--samples needs predictions of training sessions, on which the stochastic head is fitted; give an engine "
            "or a checkpoint and a split other than train, or predict the training split into the same store"
        )
    said = [c.predicted.prob[: c.length - horizon, column] for c in evidence.fitting]
    return stochastic.fit(said, [c.true(horizon) for c in evidence.fitting])


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
    over: Resampling,
) -> Reactions:
    """Score all rows, the model's, the baselines' and noise's draws among them."""
    rows = _rows(evidence, said, draws, config)
    units = [a for a, v in enumerate(evidence.rate) if np.isfinite(v)]
    kept = {n: [_finite(d)[:, :FRAMES, units] for d in row] for n, row in rows.items()}
    own = [_finite(c.true(config.horizon)[None])[0][:FRAMES, units] for c in evidence.cases]
    chosen = min(config.appropriate_sessions, len(own))
    says = evidence.appropriate
    neighbours = neighbours_of(np.eye(chosen) if says is None else says[:chosen, :chosen], chosen) if chosen else []
    seen = [i for i in range(chosen) if _seen(evidence, i, config.horizon, len(own[i]))]
    scores, resampled = {}, {}
    for name, pred in kept.items():
        items = closeness.spreads(pred)
        items |= closeness.appropriateness(pred[:chosen], own[:chosen], neighbours) if chosen else {}
        shown = [_speaker(evidence, i, config.horizon)[: len(own[i]), units] for i in seen]
        items |= _placed(closeness.followed([pred[i] for i in seen], shown), seen, chosen) if seen else {}
        scores[name], resampled[name] = _means(items, over)
        scores[name]["frdvs"] = closeness.frdvs(pred) if len(pred) > 1 else float("nan")
    long = [i for i in seen if len(own[i]) >= closeness.SHORTEST]
    made = quality.quality(evidence, said[MODEL], draws, config.horizon, over) if draws is not None else None
    lengths = [len(y) for y in own]
    return Reactions(
        (min(lengths), max(lengths)), config.samples, scores, chosen, len(long), says is None, made, resampled
    )


def _rows(
    evidence: Evidence, said: Mapping[str, Sequence[Floats]], draws: Sequence[Floats] | None, config: "Config"
) -> dict[str, Sequence[Floats]]:
    """Row → reactions [K, T, A] of every session."""
    rows: dict[str, Sequence[Floats]] = {name: [c[None] for c in curves] for name, curves in said.items()}
    if draws is not None:
        rows = {drawn_name(config.samples): draws} | rows
        rows["random"] = rivals.noises(evidence.cases, config.horizon, config.seed, config.samples)
    for baseline in evidence.baselines:
        if baseline.draws is not None:
            cut = [d[:, config.horizon : c.length] for d, c in zip(baseline.draws, evidence.cases, strict=True)]
            rows[f"{baseline.name}, {cut[0].shape[0]} draws"] = cut
    return rows


def _finite(draws: Floats) -> Floats:
    return np.stack([held(one) for one in draws]) if np.isnan(draws).any() else draws


def _seen(evidence: Evidence, case: int, horizon: int, frames: int) -> bool:
    speaker = evidence.cases[case].speaker
    return speaker is not None and len(speaker) >= horizon + frames


def _speaker(evidence: Evidence, case: int, horizon: int) -> Floats:
    speaker = evidence.cases[case].speaker
    assert speaker is not None
    return held(speaker[horizon:])


def _placed(items: Mapping[str, Array], where: Sequence[int], sessions: int) -> dict[str, Array]:
    """Scores of some sessions at their places among all [S], NaN elsewhere."""
    made = {name: np.full(sessions, np.nan) for name in items}
    for name, values in items.items():
        made[name][list(where)] = values
    return made


def _means(items: Mapping[str, Array], over: Resampling) -> tuple[dict[str, float], dict[str, Array]]:
    """Means over the sessions that have a score, of all of them and of every resample."""
    weights = np.concatenate([np.ones((1, over.counts.shape[1])), over.counts])
    found = {name: over_sessions(weights[:, : len(values)], values) for name, values in items.items()}
    return {n: float(v[0]) for n, v in found.items()}, {n: v[1:] for n, v in found.items()}
