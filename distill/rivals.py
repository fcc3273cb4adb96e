"""What stands beside the model in every table, and what each row is allowed to know.

mean              training mean of every unit; knows nothing of the conversation
mimicry           the speaker's own units at the best lag, least squares: best skill; perfect eyes
mimicry, spread   the same with the listener's spread: best CCC
another listener  the curve of a listener in another conversation: right in every statistic, blind to this speaker
random            uniform noise in every frame
last value        the listener's own face one frame before the prediction; no live robot has it: it is the listener
ground truth      the listener's own face: the ceiling, and how fast a human face moves

Shapes: T frames, A units; every curve [T - horizon, A]: row t is said at frame t of frame t + horizon.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.evidence import Case, Evidence
from dyad.metrics.baselines import Mimicry, fit_mimicry
from dyad.metrics.units import tune_thresholds
from dyad.predictions import Predictions

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
FOLDS = 10
"""Parts of the scored recordings whose thresholds are tuned together; up to so many, every recording is a part."""
KNOWS_THE_LISTENER = ("last value", "ground truth")
"""Rows that no live robot could have."""


def curves(evidence: Evidence, horizon: int, seed: int) -> dict[str, list[Floats]]:
    """Row → its curve of every case. Mimicry is missing where the speakers' units are not known, a baseline where it
    does not predict this far ahead.
    """
    mean, cases = np.nan_to_num(evidence.mean), evidence.cases
    made: dict[str, list[Floats]] = {}
    for baseline in evidence.baselines:
        if horizon in baseline.horizons:
            column = baseline.horizons.index(horizon)
            said = zip(baseline.predicted, cases, strict=True)
            made[baseline.name] = [_filled(p.prob[:, column], c.length - horizon) for p, c in said]
    made["mean"] = [np.broadcast_to(mean, case.true(horizon).shape) for case in cases]
    fitted = fit(evidence, horizon)
    if fitted is not None and _all_seen(cases):
        for name, mimic in zip(("mimicry", "mimicry, spread"), fitted, strict=True):
            made[name] = [_mimic(case, mimic, horizon) for case in cases]
    made["another listener"] = [prob for prob, _ in _other_listeners(evidence, horizon, mean, seed)]
    made["random"] = _noise(cases, horizon, seed)
    made["last value"] = [_last(case.session.prob, case, horizon, mean) for case in cases]
    made["ground truth"] = [case.true(horizon) for case in cases]
    return made


@dataclass(frozen=True)
class Said:
    """Probability that each unit is active [T - horizon, A] of every case, and from where on it counts as active."""

    act: list[Floats]
    thresholds: Array
    """Of every case, [S, A]."""
    tuned_on: str


def model(evidence: Evidence, horizon: int) -> Said:
    """What the model says of activations."""
    column = evidence.horizons.index(horizon)
    act, aside = ([_act(c, c.predicted, column, horizon) for c in of] for of in (evidence.cases, evidence.tuning))
    return Said(act, *tuned(evidence.cases, act, evidence.tuning, aside, horizon))


def activations(evidence: Evidence, horizon: int, seed: int) -> dict[str, Said]:
    """Row → what it says of activations; a threshold never saw the session that it is used for."""
    cases, rate = evidence.cases, np.nan_to_num(evidence.rate)
    shape = (len(cases), len(rate))
    half, never = np.full(shape, 0.5), np.zeros(shape)
    made: dict[str, Said] = {}
    for baseline in evidence.baselines:
        if horizon in baseline.horizons:
            column = baseline.horizons.index(horizon)
            act = [_act(c, p, column, horizon) for p, c in zip(baseline.predicted, cases, strict=True)]
            aside = [_act(c, c.predicted, column, horizon) for c in baseline.tuning]
            made[baseline.name] = Said(act, *tuned(cases, act, baseline.tuning, aside, horizon))
    mean = [np.broadcast_to(rate, case.true(horizon).shape) for case in cases]
    made["mean"] = Said(mean, never, "nothing: always active, which F1 likes best of a constant")
    mimic = _fit(evidence, horizon, [s.act for s in evidence.train])
    if mimic is not None and _all_seen(cases):
        seen = [case for case in evidence.tuning if case.speaker is not None]
        act, aside = ([_mimic(case, mimic[0], horizon) for case in of] for of in (cases, seen))
        made["mimicry"] = Said(act, *tuned(cases, act, seen, aside, horizon))
    others = [act for _, act in _other_listeners(evidence, horizon, rate, seed)]
    made["another listener"] = Said(others, half, "nothing: it is active or not")
    often = np.broadcast_to(1.0 - rate.astype(np.float64), shape)
    made["random"] = Said(_noise(cases, horizon, seed), often, "nothing: active as often as training listeners")
    last = [_last(case.session.act, case, horizon, rate) for case in cases]
    made["last value"] = Said(last, half, "nothing: it is active or not")
    truth = [np.nan_to_num(case.active(horizon)) for case in cases]
    made["ground truth"] = Said(truth, half, "nothing: it is active or not")
    return made


def _act(case: Case, predicted: Predictions, column: int, horizon: int) -> Floats:
    return _filled(predicted.act_prob[:, column], case.length - horizon)


def tuned(
    cases: Sequence[Case], act: Sequence[Floats], others: Sequence[Case], said: Sequence[Floats], horizon: int
) -> tuple[Array, str]:
    """Thresholds of highest F1 for every case [S, A] and a word on where they come from.

    From `said` of `others` where there are any; else from `act` of the cases, part by part: those of a part come from
    all others, and no recording is in two parts.
    """
    if others:
        found = tune_thresholds(np.concatenate(said), np.concatenate([c.active(horizon) for c in others]))
        return np.tile(found, (len(cases), 1)), f"{len(others)} validation sessions"
    place = {name: i for i, name in enumerate(dict.fromkeys(c.recording for c in cases))}
    thresholds = np.full((len(cases), act[0].shape[1]), 0.5)
    if len(place) == 1:
        return thresholds, "nothing: 0.5 throughout, a single recording is scored"
    parts = np.array([place[c.recording] for c in cases]) % FOLDS
    for part in np.unique(parts):
        rest = np.flatnonzero(parts != part)
        true = np.concatenate([cases[i].active(horizon) for i in rest])
        thresholds[parts == part] = tune_thresholds(np.concatenate([act[i] for i in rest]), true)
    return thresholds, f"other recordings of this split: {len(np.unique(parts))} parts, each without its own sessions"


def fit(evidence: Evidence, horizon: int) -> tuple[Mimicry, Mimicry] | None:
    """Mimicry fitted on training sessions whose speakers are measured: from the speaker at t to the listener at
    t + horizon. None when there is none.
    """
    return _fit(evidence, horizon, [s.prob for s in evidence.train])


def _fit(evidence: Evidence, horizon: int, wanted: Sequence[Floats]) -> tuple[Mimicry, Mimicry] | None:
    pairs = list(_seen(evidence, horizon, wanted))
    return fit_mimicry([s for s, _ in pairs], [y for _, y in pairs]) if pairs else None


def _seen(evidence: Evidence, horizon: int, wanted: Sequence[Floats]) -> Iterator[tuple[Floats, Floats]]:
    """Speaker at t and listener's curve at t + horizon of the training sessions whose speakers are measured."""
    for speaker, curve in zip(evidence.train_speakers, wanted, strict=True):
        if speaker is not None:
            n = min(len(speaker), len(curve))
            yield np.nan_to_num(speaker[: n - horizon]), curve[horizon:n]


def _all_seen(cases: Sequence[Case]) -> bool:
    return all(case.speaker is not None for case in cases)


def _mimic(case: Case, mimic: Mimicry, horizon: int) -> Floats:
    assert case.speaker is not None
    wanted = case.length - horizon
    return _filled(mimic.predict(np.nan_to_num(case.speaker[:wanted])), wanted)


def _filled(said: Floats, frames: int) -> Floats:
    """The first frames; the last one is held where there are fewer."""
    said = said[:frames]
    return np.concatenate([said, np.repeat(said[-1:], frames - len(said), axis=0)])


def _last(curve: Floats, case: Case, horizon: int, instead: Floats) -> Floats:
    own = curve[np.maximum(np.arange(case.length - horizon) - 1, 0)]
    return np.where(np.isnan(own), instead, own)


def noises(cases: Sequence[Case], horizon: int, seed: int, count: int) -> list[Floats]:
    """Uniform noise [K, T - horizon, A] of every case: the random row as the challenge draws it."""
    rng = np.random.default_rng([seed, 2])
    return [rng.random((count, *case.true(horizon).shape), np.float32) for case in cases]


def _noise(cases: Sequence[Case], horizon: int, seed: int) -> list[Floats]:
    rng = np.random.default_rng([seed, 1])
    return [rng.random(case.true(horizon).shape, np.float32) for case in cases]


def _other_listeners(evidence: Evidence, horizon: int, mean: Floats, seed: int) -> list[tuple[Floats, Floats]]:
    """Probability and activation of listeners of other conversations; `mean` where nobody annotated."""
    rng = np.random.default_rng(seed)
    scored = {case.session.id for case in evidence.cases}
    others = [s for s in evidence.train if s.id not in scored] or evidence.train
    made: list[tuple[Floats, Floats]] = []
    for case in evidence.cases:
        borrowed = others[int(rng.integers(len(others)))]
        rows = (int(rng.integers(borrowed.n_frames)) + np.arange(case.length - horizon)) % borrowed.n_frames
        prob, act = borrowed.prob[rows], borrowed.act[rows]
        made.append((np.where(np.isnan(prob), mean, prob), np.nan_to_num(act)))
    return made
