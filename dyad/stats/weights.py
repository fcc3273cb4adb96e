"""What a rare unit should weigh in a loss, and why not 1/log(f + ε).

The requirement weighs unit i by 1/log(f + ε), f the share of frames in which it is active. For every f + ε < 1 that is
negative: the term rewards errors. Without its sign, -1/log(f + ε), it is positive but favours the *frequent* units
(f = 0.5: 1.4, f = 0.001: 0.14), the opposite of what is wanted. Three weights that do what is meant, all of mean 1:

    -log(f + ε)          what distill.train's `loss.weighted_regression` computes by itself
    1/log(1.02 + f)      the formula's source (Paszke et al., 2016); teacher.tune's `loss.regression`
    (1 - β)/(1 - β^n)    effective number of samples (Cui et al., 2019), n movements: frames repeat one another
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPSILON, OFFSET, BETA = 1e-3, 1.02, 0.999


@dataclass(frozen=True)
class Weights:
    """Weights per unit [A]; NaN for a unit without annotation."""

    requirement: Array
    """1/log(f + ε), as written: for comparison only."""
    minus_log: Array
    offset_log: Array
    effective_number: Array


def suggest(rate: Array, events: Array) -> Weights:
    """Weights from the share of active frames and the number of movements of each unit."""
    inside = np.clip(rate + EPSILON, EPSILON, 0.99)
    return Weights(
        requirement=1 / np.log(inside),
        minus_log=_mean_one(-np.log(inside)),
        offset_log=_mean_one(1 / np.log(OFFSET + np.clip(rate, 0, 1))),
        effective_number=_mean_one(np.where(np.isnan(rate), np.nan, (1 - BETA) / (1 - BETA ** np.maximum(events, 1)))),
    )


def _mean_one(weight: Array) -> Array:
    known = weight[~np.isnan(weight)]
    return weight / known.mean() if len(known) else weight
