"""Did the unit fire when it should have? Events, matched one to one within a tolerance, instead of frames.

Frame-wise F1 punishes an onset that is two frames late as hard as a miss at its edges, and rewards one long guess over
many events. An event is a run of active frames; two match when their onsets are at most so many frames apart.
Shapes: T frames.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.metrics.checks import labelled


@dataclass(frozen=True)
class EventScores:
    """Precision, recall and F1 of events; NaN where there is none to be precise about or to recall."""

    precision: float
    recall: float
    f1: float
    matched: int
    guessed: int
    true: int


def onsets(active: NDArray[Any]) -> NDArray[np.intp]:
    """First frames of the runs of active (> 0.5) frames in [T]; a NaN frame is not active."""
    on = np.nan_to_num(np.asarray(active, np.float64)) > 0.5
    return np.flatnonzero(on & ~np.concatenate([[False], on[:-1]]))


def matches(guessed: NDArray[np.intp], true: NDArray[np.intp], tolerance_frames: int) -> int:
    """Most pairs of onsets, each used once, that are at most `tolerance_frames` apart; both sorted."""
    i = j = found = 0
    while i < len(guessed) and j < len(true):
        if abs(int(guessed[i]) - int(true[j])) <= tolerance_frames:
            i, j, found = i + 1, j + 1, found + 1
        elif guessed[i] < true[j]:
            i += 1
        else:
            j += 1
    return found


def event_scores(guess: NDArray[Any], act: NDArray[Any], tolerance_frames: int) -> EventScores:
    """Events of `guess` [T] against those of `act` [T] (0, 1, NaN); frames without a label hold no event of either."""
    if guess.shape != act.shape or guess.ndim != 1 or tolerance_frames < 0:
        raise ValueError(
            f"guess and act [T] and a tolerance ≥ 0 are needed; got {list(guess.shape)}, {list(act.shape)} and "
            f"{tolerance_frames}; score one unit of one session at a time"
        )
    known = labelled(np.asarray(guess, np.float64), np.asarray(act, np.float64), what="guess")
    given, wanted = onsets(np.where(known, guess, 0)), onsets(act)
    return combine([(matches(given, wanted, tolerance_frames), len(given), len(wanted))])


def combine(counts: list[tuple[int, int, int]]) -> EventScores:
    """Scores of the summed counts (matched, guessed, true) of several sessions, or of none."""
    matched, guessed, true = (sum(one[i] for one in counts) for i in range(3))
    nan = float("nan")
    f1 = 2 * matched / (guessed + true) if true else nan
    return EventScores(
        matched / guessed if guessed else nan, matched / true if true else nan, f1, matched, guessed, true
    )
