"""Sums of squared distances between all pairs of sequences: what FRDiv and FRDvs divide.

The reference adds the squares of a pair one after the other in float32, which costs it the sixth digit; up to 25
sequences we do the same, and get the same digits. Beyond that its own library changes to a matrix product with other
rounding, and we compute the true value: from the distances to the mean, in float64, without any pair.
Shapes: R sequences of one shape.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIRECT = 25
"""Up to so many sequences the reference goes through the pairs."""


def squared_gaps(x: NDArray[np.float32]) -> float:
    """Σ over ordered pairs of |x_i - x_j|², `x` [R, …]."""
    if len(x) > DIRECT:
        wide = x.astype(np.float64)
        return 2 * len(x) * float(np.square(wide - wide.mean(axis=0)).sum())
    rows, total = x.reshape(len(x), -1), 0.0
    for i in range(len(rows) - 1):
        gaps = rows[i + 1 :] - rows[i]
        gaps *= gaps
        distance = np.sqrt(np.add.accumulate(gaps, axis=1)[:, -1])
        total += 2 * float((distance * distance).sum(dtype=np.float64))
    return total


def squared_gaps_of_many(items: Callable[[], Iterable[NDArray[Any]]], count: int) -> float:
    """Σ over ordered pairs of items, element by element, of the squared gap; `items` is gone through twice."""
    mean: NDArray[np.float64] | float = 0.0
    for x in items():
        mean = mean + x.astype(np.float64) / count
    return 2 * count * sum(float(np.square(x - mean).sum()) for x in items())
