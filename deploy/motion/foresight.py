"""What a plan would say beyond its last row: the best linear guess, for movements as smooth as a face's.

A plan that ends before the motors get there has to be guessed on. Its last slope alone would be bold and, where a
student's rows jitter, wild: a slope between two rows is mostly their jitter. So all rows are taken for a movement of
Matérn covariance 5/2 (twice differentiable, and no smoother) plus a little noise of their own, on an unknown level;
the guess is the conditional mean, which goes on straight where the rows do and calms down where it cannot know.
Shapes: H rows of a plan, E rows beyond.  Source: Rasmussen & Williams, "Gaussian processes", 2006, 4.2.1.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FRAME_S

Array = NDArray[np.float64]
BEYOND_S: Array = FRAME_S * np.arange(1, 9, dtype=float)
"""Rows guessed, after the last one; then the last guess is kept."""
SMOOTH_S = 1.2
"""Length scale of the covariance; long against a plan, so that speed and its change are what the rows tell."""
JITTER = 0.0015
"""Of a row for itself, in parts of the movement's standard deviation: less is bolder."""
LEVEL = 100.0
"""Variance of the unknown level, in the movement's: large, no guess falls back to neutral."""


def beyond(times_s: Array, shares: Array) -> Array:
    """Shares [E, C] at `BEYOND_S` after the last row, of rows [H, C] at rising times [H]."""
    past_s = tuple(np.round(times_s - times_s[-1], 4).tolist())
    return _weights(past_s) @ shares


@lru_cache(maxsize=16)
def _weights(past_s: tuple[float, ...]) -> Array:
    """Weights [E, H] of rows so long ago; each line adds up to 1."""
    past = np.array(past_s)
    known = _covariance(past[:, None] - past) + JITTER**2 * np.eye(len(past))
    weights = np.linalg.solve(known, _covariance(BEYOND_S[:, None] - past).T).T
    return weights / weights.sum(axis=1, keepdims=True)


def _covariance(apart_s: Array) -> Array:
    near = np.sqrt(5) * np.abs(apart_s) / SMOOTH_S
    return LEVEL + (1 + near + near**2 / 3) * np.exp(-near)
