"""Which labels are worth learning from: a gate between teacher and student.

Each labelled session is measured for collapse (the curves hardly move, beside the rest of the store), saturation
(probabilities stuck at 0 or 1), disagreement (views of the same frame differ, beside the rest of the store) and, where
the listener is annotated, calibration. Sessions past a limit are listed with the reasons in STORE/quality.json, which
`distill.train` reads: their soft labels are left out, their annotation stays.
Shapes: T frames, A units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.layouts import processed
from dyad.metrics import agreement, calibration
from dyad.session import Session
from dyad.soft_labels import SoftLabels, SoftLabelStore

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Past any of these, a session's labels are dropped."""

    least_spread: float = 0.005
    """Least movement (standard deviation over time, mean over units); less is the mean predictor's."""
    min_spread: float = 0.2
    """Least movement (standard deviation over time, mean over units), as a share of the store's median."""
    max_saturated: float = 0.9
    """Largest share of probabilities below 0.001 or above 0.999."""
    max_disagreement: float = 3.0
    """Largest mean uncertainty, in multiples of the store's median."""
    max_calibration_error: float = 0.2
    """Largest expected calibration error of the activations, all units pooled, where annotated."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One session's labels in numbers; NaN where it is not annotated."""

    spread: float
    saturated: float
    disagreement: float
    calibration_error: float


def measure(soft: SoftLabels, act: Floats | None) -> Measures:
    """Measures of a session's labels [T, A], beside the annotated activations [T, A] (NaN unknown) if there are any."""
    prob = soft.prob.astype(np.float64)
    error = float("nan")
    if act is not None and not np.isnan(act).all():
        error = calibration.expected_error(1 / (1 + np.exp(-soft.act_logit.astype(np.float64))), act)
    return Measures(
        spread=float(prob.std(axis=0).mean()),
        saturated=float(((prob < 1e-3) | (prob > 1 - 1e-3)).mean()),
        disagreement=float(soft.uncertainty.mean()),
        calibration_error=error,
    )


def reasons(m: Measures, spread: float, disagreement: float, limits: Limits) -> list[str]:
    """Why a session should be dropped, given the store's median spread and disagreement; empty when it should not."""
    found: list[str] = []
    if m.spread < max(limits.min_spread * spread, limits.least_spread):
        found.append(f"collapsed: moves by {m.spread:.4f}, the median session by {spread:.4f}")
    if m.saturated > limits.max_saturated:
        found.append(f"saturated: {m.saturated:.0%} of its probabilities are stuck at 0 or 1")
    if m.disagreement > limits.max_disagreement * disagreement:
        found.append(f"disagreement: uncertainty {m.disagreement:.3f}, in the median session {disagreement:.3f}")
    if m.calibration_error > limits.max_calibration_error:
        found.append(f"miscalibrated: off by {m.calibration_error:.3f} from the annotated activations")
    return found


class UnitTotals:
    """Calibration and CCC per unit over all annotated sessions, from sums that need no session twice."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._sums = np.zeros((len(names), 8))
        self._bins = np.zeros((len(names), 2, calibration.BINS))

    def add(self, soft: SoftLabels, prob: Floats, act: Floats) -> None:
        """One session's labels beside its annotation, [T, A] each, NaN unknown."""
        self._sums += agreement.sums(soft.prob, prob, np.zeros(len(self.names), np.float32))
        chance = 1 / (1 + np.exp(-soft.act_logit.astype(np.float64)))
        self._bins += np.stack([calibration.gaps(chance[:, a], act[:, a]) for a in range(len(self.names))])

    def table(self) -> dict[str, dict[str, float | None]]:
        """Unit → calibration error and CCC, None where it is not annotated or flat."""
        ccc, errors = agreement.scores(self._sums).ccc, [calibration.error_of(b) for b in self._bins]
        return {
            name: {"calibration_error": _known(errors[a]), "ccc": _known(ccc[a])} for a, name in enumerate(self.names)
        }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def judge(store: SoftLabelStore, annotated: Iterable[Session], limits: Limits) -> dict[str, Any]:
    """The verdict on every label in the store; `annotated` gives sessions one by one, those without a label too."""
    damaged = {i for i, _ in store.broken()}  # named where they are asked for; there is nothing to judge
    measures = {i: measure(store.read(i), None) for i in store.ids() if i not in damaged}
    units = UnitTotals(store.au_names)
    for session in annotated:
        if session.id in measures and not np.isnan(session.act).all():
            soft = store.read(session.id)
            measures[session.id] = measure(soft, session.act)
            units.add(soft, session.prob, session.act)
    spread = median([m.spread for m in measures.values()] or [0.0])
    disagreement = median([m.disagreement for m in measures.values()] or [0.0])
    return {
        "limits": asdict(limits),
        "median_spread": spread,
        "median_disagreement": disagreement,
        "units": units.table(),
        "sessions": {i: {k: _known(v) for k, v in asdict(m).items()} for i, m in measures.items()},
        "drop": {i: why for i, m in measures.items() if (why := reasons(m, spread, disagreement, limits))},
    }


def judge_store(store: SoftLabelStore, dataset: Path, limits: Limits) -> None:
    """Judge a store of `dataset`'s sessions, write its quality.json and tell the verdict; an empty one has none."""
    if not store.ids():
        return
    splits = [s for s in processed.SPLITS if (processed.root_of(dataset) / "processed" / s).is_dir()]
    verdict = judge(store, (s for name in splits for s in processed.iterate(dataset, name)), limits)
    store.write_quality(verdict)
    for session_id, why in verdict["drop"].items():
        print(f"not worth learning from: {session_id}: {'; '.join(why)}")
    print(
        f"quality: {len(verdict['drop'])} of {len(verdict['sessions'])} sessions to drop ({store.quality_path}); "
        f"median movement {verdict['median_spread']:.4f}, median uncertainty {verdict['median_disagreement']:.4f}"
    )
    if verdict["median_spread"] < limits.least_spread:
        print("quality: the labels hardly move in any session: this teacher predicts the mean; tune it longer")
