"""What one movement of a unit looks like: the mean probability around its start.

Shapes: A units, W frames from `BEFORE` before to `AFTER` after the first active frame.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS
from dyad.session import Session

BEFORE, AFTER = FPS, 3 * FPS


def around_starts(sessions: Iterable[Session], units: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean probability [A, W] and the number of movements [A]; NaN where there is none.

    A movement counts when its whole surroundings are annotated.
    """
    total, count = np.zeros((units, BEFORE + AFTER)), np.zeros(units, np.int64)
    for session in sessions:
        starts = np.argwhere((session.act[1:] > 0.5) & (session.act[:-1] <= 0.5))
        for t, a in ((int(t) + 1, int(a)) for t, a in starts):
            piece = session.prob[t - BEFORE : t + AFTER, a] if t >= BEFORE else session.prob[:0, a]
            if len(piece) == BEFORE + AFTER and not np.isnan(piece).any():
                total[a] += piece
                count[a] += 1
    return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], np.nan), count
