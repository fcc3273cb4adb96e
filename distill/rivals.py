"""What stands beside the model in every table, and what each rival is allowed to know.

mean              training mean of every unit; knows nothing of the conversation
mimicry           the speaker's own units at the best lag, least squares: best skill; perfect eyes
mimicry, spread   the same with the listener's spread: best CCC
another listener  the curve of a listener in another conversation: right in every statistic, blind to this speaker
last value        the listener's own face one frame ago; no live robot has it, since the robot is the listener
attainable        synthetic sessions only: expectation over listeners, given all that the past reveals

Shapes: T frames, A units; every curve [T - horizon, A]: row t is said at frame t of frame t + horizon.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distill.evidence import Case, Evidence
from dyad.metrics.baselines import Mimicry, fit_mimicry

Floats = NDArray[np.float32]


def curves(evidence: Evidence, horizon: int, seed: int) -> dict[str, list[Floats]]:
    """Rival → its curve of every case. Mimicry is missing where the speakers' units are not known."""
    mean = np.nan_to_num(evidence.mean)
    cases = evidence.cases
    made = {
        "mean": [np.broadcast_to(mean, case.true(horizon).shape) for case in cases],
        "another listener": _other_listeners(evidence, horizon, mean, seed),
        "last value": [_last_value(case, horizon, mean) for case in cases],
    }
    fitted = fit(evidence, horizon)
    if fitted is not None and all(case.speaker is not None for case in cases):
        for name, mimic in zip(("mimicry", "mimicry, spread"), fitted, strict=True):
            made[name] = [_mimic(case, mimic, horizon) for case in cases]
    return made


def fit(evidence: Evidence, horizon: int) -> tuple[Mimicry, Mimicry] | None:
    """Mimicry fitted on training sessions whose speakers are measured: from the speaker at t to the listener at
    t + horizon. None when there is none.
    """
    speakers: list[Floats] = []
    listeners: list[Floats] = []
    for session, speaker in zip(evidence.train, evidence.train_speakers, strict=True):
        if speaker is not None:
            n = min(len(speaker), session.n_frames)
            speakers.append(np.nan_to_num(speaker[: n - horizon]))
            listeners.append(session.prob[horizon:n])
    return fit_mimicry(speakers, listeners) if speakers else None


def _mimic(case: Case, mimic: Mimicry, horizon: int) -> Floats:
    assert case.speaker is not None
    wanted = case.length - horizon
    said = mimic.predict(np.nan_to_num(case.speaker[:wanted]))
    return np.concatenate([said, np.repeat(said[-1:], wanted - len(said), axis=0)])


def _last_value(case: Case, horizon: int, mean: Floats) -> Floats:
    own = case.session.prob[np.maximum(np.arange(case.length - horizon) - 1, 0)]
    return np.where(np.isnan(own), mean, own)


def _other_listeners(evidence: Evidence, horizon: int, mean: Floats, seed: int) -> list[Floats]:
    rng = np.random.default_rng(seed)
    scored = {case.session.id for case in evidence.cases}
    others = [s for s in evidence.train if s.id not in scored] or evidence.train
    made: list[Floats] = []
    for case in evidence.cases:
        borrowed = others[int(rng.integers(len(others)))].prob
        rows = (int(rng.integers(len(borrowed))) + np.arange(case.length - horizon)) % len(borrowed)
        made.append(np.where(np.isnan(borrowed[rows]), mean, borrowed[rows]))
    return made


def attainable(cases: Sequence[Case], au_names: Sequence[str], horizon: int, listeners: int) -> list[Floats]:
    """The bound of cases that have a truth file, units by name."""
    from dyad.action_units import SEED17, positions
    from dyad.synthetic import bound

    source, target = positions(SEED17.units, au_names)
    made: list[Floats] = []
    for case in cases:
        assert case.truth is not None
        best = bound.attainable(case.truth, horizon, listeners=listeners)[: case.length - horizon]
        curve = np.full((len(best), len(au_names)), np.nan, np.float32)
        curve[:, target] = best[:, source]
        made.append(curve)
    return made
