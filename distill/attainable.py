"""How near a model comes to what any causal predictor could reach, on synthetic sessions, which know it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill import scoring
from distill.evidence import Case, Evidence
from distill.scoring import Score
from dyad.metrics.bootstrap import Resampling

Floats = NDArray[np.float32]


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
    over = Resampling.of([case.recording for case in cases], resamples, seed)
    said = [c.predicted.prob[: len(y), column] for c, y in zip(cases, true, strict=True)]
    best, model = (
        scoring.agreement_system(scoring.session_sums(curves, true, reference), over, {})
        for curves in (best_curves(cases, evidence.au_names, horizon, listeners), said)
    )
    shares = {}
    for name in ("macro_skill", "macro_ccc"):
        ratio = model.resampled[name] / np.where(best.resampled[name] > 1e-3, best.resampled[name], np.nan)
        shares[name] = scoring.score(model.macro[name].value / best.macro[name].value, ratio, over)
    return Bound(
        sessions=len(cases),
        skill=best.macro["macro_skill"].value,
        ccc=best.macro["macro_ccc"].value,
        share_of_skill=shares["macro_skill"],
        share_of_ccc=shares["macro_ccc"],
    )


def best_curves(cases: Sequence[Case], au_names: Sequence[str], horizon: int, listeners: int) -> list[Floats]:
    """The bound of cases that have a truth file, units by name."""
    from dyad.action_units import SEED17, positions
    from dyad.synthetic import bound as synthetic

    source, target = positions(SEED17.units, au_names)
    made: list[Floats] = []
    for case in cases:
        assert case.truth is not None
        best = synthetic.attainable(case.truth, horizon, listeners=listeners)[: case.length - horizon]
        curve = np.full((len(best), len(au_names)), np.nan, np.float32)
        curve[:, target] = best[:, source]
        made.append(curve)
    return made
