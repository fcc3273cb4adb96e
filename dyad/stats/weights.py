"""What a rare unit should weigh in a loss, and why not 1/log(f + ε).

The requirement weighs unit i by 1/log(f + ε), f the share of frames in which it is active. For every f + ε < 1 that is
negative: the term rewards errors. Without its sign, -1/log(f + ε), it is positive but favours the *frequent* units
(f = 0.5: 1.4, f = 0.001: 0.14), the opposite of what is wanted. Three weights that do what is meant, all of mean 1:

    -log(f + ε)          what distill.train's `loss.weighted_regression` computes by itself
    1/log(1.02 + f)      the formula's source (Paszke et al., 2016); teacher.tune's `loss.regression`
    (1 - β)/(1 - β^n)    effective number of samples (Cui et al., 2019), n movements: frames repeat one another

How much of it a training needs depends on how uneven the units are: `strength`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPSILON, OFFSET, BETA = 1e-3, 1.02, 0.999
EVEN, UNEVEN = 2.0, 100.0
"""Units that differ in frequency by less than the first need no weights; by the second or more, full strength."""
FULL_STRATIFY, FULL_REGRESSION = 1.0, 0.2


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


@dataclass(frozen=True)
class Strength:
    """How strongly a dataset's rare units should be weighed, and why."""

    imbalance: float
    """How many times as often as the rarest unit that moves the most frequent one is active; NaN without any."""
    stratify: float
    """How much more often windows with rare units are drawn, 0 to 1."""
    weighted_regression: float
    """How strongly the weighted term counts, 0 to 0.2: weighting costs calibration."""
    why: str


def strength(rate: Array, au_names: Sequence[str]) -> Strength:
    """Strength from the share of active frames of each unit [A]: it grows with the logarithm of the imbalance."""
    moving = [a for a in range(len(rate)) if rate[a] > 0]
    if not moving:
        return Strength(float("nan"), 0.0, 0.0, "not needed: no unit is ever active")
    most, least = max(moving, key=lambda a: rate[a]), min(moving, key=lambda a: rate[a])
    imbalance = float(rate[most] / rate[least])
    share = float(np.clip(np.log(imbalance) / np.log(UNEVEN), 0, 1)) if imbalance >= EVEN else 0.0
    said = f"{au_names[most]} is active {imbalance:.3g} times as often as {au_names[least]}"
    if not share:
        return Strength(imbalance, 0.0, 0.0, f"not needed: {said}")
    return Strength(imbalance, round(FULL_STRATIFY * share, 2), round(FULL_REGRESSION * share, 2), said)


def _mean_one(weight: Array) -> Array:
    known = weight[~np.isnan(weight)]
    return weight / known.mean() if len(known) else weight
