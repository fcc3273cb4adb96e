"""What a plan would say beyond its last row: the best linear guess, for movements as smooth as a face's.

A plan that ends before the motors get there has to be guessed on. Its last slope alone would be bold and, where a
student's rows jitter, wild: a slope between two rows is mostly their jitter. So all rows are taken for a movement of
Matérn covariance 5/2 (twice differentiable, and no smoother) plus a little noise of their own, on an unknown level;
the guess is the conditional mean, which goes on straight where the rows do and calms down where it cannot know.
How much noise is learnt from the rows themselves, channel by channel: each of several amounts gives its guess, and has
a say by how well it explains the rows of the last second.
Shapes: H rows of a plan, E rows beyond, C channels, J amounts.  Source: Rasmussen & Williams, "Gaussian processes",
2006, 4.2.1 and 5.4.1.
"""

from dataclasses import dataclass
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
JITTERS = (0.0005, JITTER, 0.005, 0.015)
"""Amounts that are weighed; more than the last made real plans worse: their rows say more of the way than it allows."""
BOLD = 2.0
"""Logarithm of the odds of every amount before any row is seen, against the next larger: a movement's kinks look like
noise for a moment."""
_ODDS: Array = BOLD * np.arange(len(JITTERS), dtype=float)[:, None]
LEVEL = 100.0
"""Variance of the unknown level, in the movement's: large, no guess falls back to neutral."""
KEEP = 0.95
"""Of the evidence from one plan to the next: it is forgotten within a second."""
STILL = 1e-4
"""Shares of travel: rows that stay within tell nothing, and are guessed on boldly, which is to stay."""


@dataclass(frozen=True)
class _Model:
    """For rows at certain times, one amount of noise."""

    weights: Array
    """[E, H] of the rows in every guess; each line adds up to 1."""
    whitening: Array
    """[H, H]: rows that are as the model says become noise of variance 1, times the movement's."""
    volume: float
    """Logarithm of the determinant of the rows' covariance."""


class Foresight:
    """What the plans so far said about their noise."""

    def __init__(self) -> None:
        self._misfit: Array | None = None

    def beyond(self, times_s: Array, shares: Array) -> Array:
        """Learn from rows [H, C] at rising times [H], and guess the shares [E, C] at `BEYOND_S` after the last."""
        models = [_model(_past(times_s), jitter) for jitter in JITTERS]
        misfit = np.array([((m.whitening @ (shares - shares[-1])) ** 2).mean(axis=0) for m in models])
        self._misfit = misfit if self._misfit is None else KEEP * self._misfit + (1 - KEEP) * misfit
        volumes = np.array([m.volume for m in models])[:, None]
        evidence = -0.5 * (len(times_s) * np.log(self._misfit + STILL**2) + volumes) - _ODDS
        say = np.exp(evidence - evidence.max(axis=0))
        say /= say.sum(axis=0)
        return sum((part * (m.weights @ shares) for part, m in zip(say, models, strict=True)), np.zeros(1))


def beyond(times_s: Array, shares: Array, jitter: float = JITTER) -> Array:
    """Shares [E, C] at `BEYOND_S` after the last row, of rows [H, C] at rising times [H], with so much noise."""
    return _model(_past(times_s), jitter).weights @ shares


def _past(times_s: Array) -> tuple[float, ...]:
    return tuple(np.round(times_s - times_s[-1], 4).tolist())


@lru_cache(maxsize=64)
def _model(past_s: tuple[float, ...], jitter: float) -> _Model:
    past = np.array(past_s)
    known = _covariance(past[:, None] - past) + jitter**2 * np.eye(len(past))
    weights = np.linalg.solve(known, _covariance(BEYOND_S[:, None] - past).T).T
    lower = np.linalg.cholesky(known)
    whitening = np.asarray(np.linalg.inv(lower), float)
    volume = 2 * float(np.log(np.diag(lower)).sum())
    return _Model(weights / weights.sum(axis=1, keepdims=True), whitening, volume)


def _covariance(apart_s: Array) -> Array:
    near = np.sqrt(5) * np.abs(apart_s) / SMOOTH_S
    return LEVEL + (1 + near + near**2 / 3) * np.exp(-near)
