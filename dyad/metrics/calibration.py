"""Does 0.7 happen seven times in ten? Expected calibration error of probabilities.

Range 0 to 1, lower is better. It says nothing about sharpness: the base rate as a constant prediction has error 0.
Source: Naeini et al., 2015.
"""

import numpy as np
from numpy.typing import NDArray

from dyad.metrics.checks import labelled, require_probabilities

BINS = 10


def gaps(prob: NDArray[np.floating], act: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sums [2, BINS] over bins of equal width: Σ(probability - active), and how many; they add up over sessions.

    `prob` in [0, 1] and `act` (0, 1, NaN unknown) have one shape, [N] or [N, A]. A bin holds its lower edge,
    the last one both; probabilities that are none are refused.
    """
    known = labelled(prob, act, what="probability")
    require_probabilities(prob, session="the scored frames", what="probability", scored=known)
    p, y = prob[known].astype(np.float64), act[known].astype(np.float64)
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    sums = [np.bincount(place, weights=w, minlength=BINS) for w in (p - y, np.ones_like(p))]
    return np.stack(sums).astype(np.float64)


def error_of(sums: NDArray[np.float64]) -> float:
    """Expected calibration error of sums [2, BINS]: mean |probability - share active| weighted by count, or NaN."""
    count = sums[1].sum()
    return float(np.abs(sums[0]).sum() / count) if count else float("nan")


def expected_error(prob: NDArray[np.floating], act: NDArray[np.floating]) -> float:
    """Expected calibration error of `prob` against `act`, see `gaps`; NaN when nothing is annotated."""
    return error_of(gaps(prob, act))
