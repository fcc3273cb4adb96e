"""Is the unit active? F1, precision, recall, area under precision-recall, events and calibration of every row.

All from counts per session that add up, so that a resample of sessions costs a product. The area of all sessions is
exact; its resamples read it at 256 thresholds that hold equally many positives, and are shifted by what that costs.
Shapes: S sessions, R resamples, A units, B thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill import rivals, scoring
from distill.evidence import Evidence
from distill.rivals import Said
from distill.scoring import MODEL, Groups, System
from dyad.metrics import calibration, classification, events
from dyad.metrics.bootstrap import Resampling

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
SCORES = ("f1", "precision", "recall", "auprc", "event_f1", "ece")
STEPS = 256


@dataclass(frozen=True)
class Activity:
    """Activation scores of every row."""

    systems: dict[str, System]
    thresholds: dict[str, list[float]]
    """Per unit; of cross-fitted ones the median over sessions, rounded down to one of them."""
    tuned_on: dict[str, str]
    base_rate: list[float]
    """Share of the scored frames in which each unit is active: what a guesser's precision is."""
    reliability: dict[str, Array]
    """Σ probability, Σ active and frames of ten bins over all units, [3, 10]."""
    tolerance_frames: int


def activity(evidence: Evidence, horizon: int, over: Resampling, *, seed: int, tolerance_frames: int) -> Activity:
    """Score the model and all that stands beside it."""
    said = {MODEL: rivals.model(evidence, horizon)} | rivals.activations(evidence, horizon, seed)
    true = [c.active(horizon) for c in evidence.cases]
    groups = scoring.groups_of(evidence)
    return Activity(
        systems={name: _system(one, true, over, groups, tolerance_frames) for name, one in said.items()},
        thresholds={
            name: [float(v) for v in np.quantile(one.thresholds, 0.5, axis=0, method="inverted_cdf")]
            for name, one in said.items()
        },
        tuned_on={name: one.tuned_on for name, one in said.items()},
        base_rate=[float(v) for v in scoring.mean_defined(np.concatenate(true).T.astype(np.float64))],
        reliability={name: reliability(one.act, true) for name, one in said.items()},
        tolerance_frames=tolerance_frames,
    )


def _system(said: Said, true: Sequence[Floats], over: Resampling, groups: Groups, tolerance_frames: int) -> System:
    guesses = [p >= at for p, at in zip(said.act, said.thresholds, strict=True)]
    frames = np.stack([hits(g, y) for g, y in zip(guesses, true, strict=True)])
    fired = np.stack([_events(g, y, tolerance_frames) for g, y in zip(guesses, true, strict=True)])
    gaps = np.stack([_gaps(p, y) for p, y in zip(said.act, true, strict=True)])
    whole = _of_counts(frames.sum(axis=0), fired.sum(axis=0), gaps.sum(axis=0))
    drawn = _of_counts(*(scoring.added(over.counts, x) for x in (frames, fired, gaps)))
    whole["auprc"], drawn["auprc"] = areas(said.act, true, over.counts)
    return scoring.system({n: whole[n] for n in SCORES}, {n: drawn[n] for n in SCORES}, groups, over)


def _of_counts(frames: Array, fired: Array, gaps: Array) -> dict[str, Array]:
    """Scores [..., A] of counts [..., A, 3] and calibration sums [..., A, 2, 10]; NaN where undefined."""
    right, wanted, given = np.moveaxis(frames, -1, 0)
    event_right, event_wanted, event_given = np.moveaxis(fired, -1, 0)
    return {
        "f1": f1(right, wanted, given),
        "precision": _ratio(right, given),
        "recall": _ratio(right, wanted),
        "event_f1": f1(event_right, event_wanted, event_given),
        "ece": _ratio(np.abs(gaps[..., 0, :]).sum(axis=-1), gaps[..., 1, :].sum(axis=-1)),
    }


def _ratio(part: Array, whole: Array) -> Array:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def f1(right: Array, wanted: Array, given: Array) -> Array:
    """F1 of counts; NaN for units without positives."""
    return np.where(wanted > 0, 2 * right / np.maximum(wanted + given, 1), np.nan)


def hits(guess: NDArray[np.bool_], act: Floats) -> Array:
    """Counts [A, 3] of one session: right positives, positives, guesses."""
    known = ~np.isnan(act)
    wanted, given = known & (np.nan_to_num(act) > 0.5), known & guess
    return np.stack([(wanted & given).sum(axis=0), wanted.sum(axis=0), given.sum(axis=0)], axis=1).astype(np.float64)


def _events(guess: NDArray[np.bool_], act: Floats, tolerance_frames: int) -> Array:
    """Events [A, 3] of one session: matched, true, guessed."""
    made = [events.event_scores(guess[:, a], act[:, a], tolerance_frames) for a in range(act.shape[1])]
    return np.array([(e.matched, e.true, e.guessed) for e in made], np.float64)


def _gaps(act_prob: Floats, act: Floats) -> Array:
    """Calibration sums [A, 2, 10] of one session."""
    return np.stack([calibration.gaps(act_prob[:, a], act[:, a]) for a in range(act.shape[1])])


def reliability(said: Sequence[Floats], true: Sequence[Floats]) -> Array:
    """Σ probability, Σ active and frames of ten bins, [3, 10], over all units and sessions."""
    p, y = np.concatenate([v.ravel() for v in said]), np.concatenate([v.ravel() for v in true])
    gap, count = calibration.gaps(p, y)
    probability, _ = calibration.gaps(p, np.where(np.isnan(y), y, 0))
    return np.stack([probability, probability - gap, count])


def areas(said: Sequence[Floats], true: Sequence[Floats], counts: Array) -> tuple[Array, Array]:
    """Area under precision-recall per unit: of all sessions [A], and of every resample [R, A]."""
    p, y = np.concatenate(said), np.concatenate(true)
    starts = np.cumsum([0, *(len(v) for v in said)])
    session = np.repeat(np.arange(len(said)), np.diff(starts))
    exact, drawn = np.full(p.shape[1], np.nan), np.full((len(counts), p.shape[1]), np.nan)
    for a in range(p.shape[1]):
        exact[a] = classification.average_precision(p[:, a], y[:, a])
        if np.isfinite(exact[a]):
            held = _held(p[:, a], y[:, a], session, len(said))
            read = _area(scoring.added(np.concatenate([np.ones((1, len(said))), counts]), held))
            drawn[:, a] = read[1:] + exact[a] - read[0]
    return exact, drawn


def _held(p: Floats, y: Floats, session: NDArray[np.int64], sessions: int) -> Array:
    """Positives and frames [S, 2, B] between thresholds of one unit, from the highest threshold down."""
    known = ~np.isnan(y)
    positive = p[known & (y > 0.5)]
    steps = np.unique(np.quantile(positive, np.linspace(0, 1, STEPS), method="inverted_cdf"))
    place = len(steps) - np.searchsorted(steps, p, side="right")  # 0: at or above the highest; last: below all
    cell = session * (len(steps) + 1) + place
    frames, positives = (
        np.bincount(cell[chosen], minlength=sessions * (len(steps) + 1)).reshape(sessions, -1)
        for chosen in (known, known & (y > 0.5))
    )
    return np.stack([positives, frames], axis=1)[..., :-1].astype(np.float64)


def _area(held: Array) -> Array:
    """Step-function area [...] of positives and frames [..., 2, B]; NaN without positives."""
    right, given = np.moveaxis(np.cumsum(held, axis=-1), -2, 0)
    total = right[..., -1:]
    precision = right / np.maximum(given, 1)
    steps = np.diff(right, axis=-1, prepend=0.0) / np.maximum(total, 1)
    return np.where(total[..., 0] > 0, (precision * steps).sum(axis=-1), np.nan)
