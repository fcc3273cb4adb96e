"""Is the unit active? F1 at a given threshold, the threshold that F1 likes best, and the area under precision–recall.

Frame-wise. NaN labels are left out, a probability that is not finite is refused; a unit without positives has no score:
NaN.
"""

import numpy as np
from numpy.typing import NDArray

from dyad.metrics.checks import labelled

Floats = NDArray[np.float32]


def _known(prob: Floats, act: Floats) -> tuple[Floats, Floats]:
    known = labelled(prob, act, what="probability")
    return prob[known], act[known]


def f1(prob: Floats, act: Floats, threshold: float) -> float:
    """F1 of `prob` ≥ threshold against `act` (0, 1, NaN), both [N]."""
    p, y = _known(prob, act)
    guess = p >= threshold
    hits = float((guess & (y > 0.5)).sum())
    wanted, given = float((y > 0.5).sum()), float(guess.sum())
    return 2 * hits / (wanted + given) if wanted else float("nan")


def best_threshold(prob: Floats, act: Floats) -> float:
    """The threshold of highest F1; tune it on other sessions than those you score. 0.5 when there is no positive."""
    p, y = _known(prob, act)
    order = np.argsort(-p, kind="stable")
    p, y = p[order], y[order]
    if not (y > 0.5).any():
        return 0.5
    hits = np.cumsum(y > 0.5)
    scores = 2 * hits / (hits[-1] + np.arange(1, len(y) + 1))
    last_of_value = np.append(p[1:] != p[:-1], True)
    return float(p[np.argmax(np.where(last_of_value, scores, -1))])


def average_precision(prob: Floats, act: Floats) -> float:
    """Area under the precision–recall curve as a step function; equal to scikit-learn's average_precision_score."""
    p, y = _known(prob, act)
    if not (y > 0.5).any():
        return float("nan")
    order = np.argsort(-p, kind="stable")
    p, y = p[order], y[order]
    keep = np.append(p[1:] != p[:-1], True)
    hits = np.cumsum(y > 0.5)[keep]
    precision = hits / (np.flatnonzero(keep) + 1)
    recall = hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def precision(prob: Floats, act: Floats, threshold: float) -> float:
    """Share of right ones among the frames with `prob` ≥ threshold; NaN where there is none."""
    p, y = _known(prob, act)
    given = p >= threshold
    return float((y[given] > 0.5).mean()) if given.any() else float("nan")


def recall(prob: Floats, act: Floats, threshold: float) -> float:
    """Share of the active frames that have `prob` ≥ threshold; NaN where there is none."""
    p, y = _known(prob, act)
    wanted = y > 0.5
    return float((p[wanted] >= threshold).mean()) if wanted.any() else float("nan")
