"""Which speaker could have met which listener: what is known of chance.

Speakers of many sessions are dealt to listeners of others at random. Few sessions can be dealt so in few ways, and
their spread tells little of the one true way, which shares no pair with any of them (five sessions: "1 in 20" happened
four times as often). Up to eight are therefore dealt in orders that differ, all of them where that many are asked for,
some speakers with their own listener, as an exact test wants it. Three sessions have five such orders: nothing is told
from so few.
Shapes: N sessions, M orders.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Share of datasets without any lag in which one may be called real."""
TRIES = 50
"""Orders drawn before one is built."""
LISTED = 8
"""Up to so many sessions all their orders are listed."""


def too_few(n: int, clips: Sequence[str] | None = None) -> str:
    """Why `n` sessions cannot tell a lag from chance; empty where they can."""
    ways = len(_all_deals(_kept_apart(n, clips))) if n <= LISTED else LISTED**n
    if 1 / (ways + 1) <= LEVEL:
        return ""
    return (
        f"too few sessions ({n}) to tell from chance: their speakers can be dealt anew in {ways} ways, and "
        f"{round(1 / LEVEL) - 1} are needed; four sessions of different clips have 23"
    )


def deals(n: int, count: int, rng: np.random.Generator, clips: Sequence[str] | None = None) -> list[NDArray[np.intp]]:
    """`count` orders as `dealt` gives them; of few sessions `count` different ones, or all there are."""
    if n > LISTED:
        return [dealt(n, rng, clips) for _ in range(count)]
    listed = _all_deals(_kept_apart(n, clips))
    return list(listed if len(listed) <= count else rng.permutation(listed)[:count])


def _kept_apart(n: int, clips: Sequence[str] | None) -> NDArray[np.intp]:
    """Number of every session's clip; of the session, where clips cannot all be kept apart."""
    same = np.unique(clips, return_inverse=True)[1] if clips is not None else np.arange(n)
    return same if n == 0 or 2 * np.bincount(same).max() <= n else np.arange(n)


def _all_deals(same: NDArray[np.intp]) -> NDArray[np.intp]:
    """Every order [M, N] but the true one in which all keep their place or meet another clip."""
    orders = np.array(list(permutations(range(len(same)))), dtype=np.intp)
    return orders[1:][((orders == orders[:1]) | (same[orders] != same)).all(axis=1)[1:]]


def dealt(n: int, rng: np.random.Generator, clips: Sequence[str] | None = None) -> NDArray[np.intp]:
    """A random order in which nobody keeps their place, nor takes one of the same clip where that can be had."""
    same = _kept_apart(n, clips)
    for _ in range(TRIES):
        order = rng.permutation(n)
        if not (same[order] == same).any():
            return order
    # Large clips, which chance hardly ever keeps apart: all in a row, clip by clip in random order; everybody takes
    # the place of the one who stands the largest clip's length away, or more.
    largest = int(np.bincount(same).max())
    row = np.lexsort((rng.random(n), rng.permutation(int(same.max()) + 1)[same]))
    order = np.empty(n, np.intp)
    order[row] = np.roll(row, int(rng.integers(largest, n - largest + 1)))
    return order
