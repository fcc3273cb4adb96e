"""The inner loop of dynamic time warping, in the few words of Python that numba compiles to vector instructions.

Four rows of the matrix at a time. Their frame distances first: every channel of y is read in order, four channels
together, which is what vector units like. Then the four rows of path costs, each one cell behind the row above, so that
four chains of minima run side by side where one would wait for itself. Channels are summed in order, in float64: the
digits are those of the textbook's double loop.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ROWS = 4
TILE = 256
"""Frames of y whose channels stay in the nearest cache while four rows are computed."""


def squared_distance(x: Array, y: Array, limit: float) -> float:
    """Least sum of squared frame distances over all warping paths of `x` [n, D] and `y` [D, m]; inf when above `limit`.

    D is a multiple of four (pad with zeros). One function of sixty lines, because numba cannot keep the machine code
    of several that are compiled by call. It stops at the first four rows after which no path is within the limit.
    """
    n, channels, m = x.shape[0], x.shape[1], y.shape[1]
    cost = np.full((ROWS, m + ROWS - 1), np.inf)  # row r starts r cells late
    above, below = np.full(m + 1, np.inf), np.full(m + 1, np.inf)  # path costs; cell j lies at j + 1
    above[0] = 0.0
    alive = 1
    for i in range(0, n, ROWS):
        rows = min(ROWS, n - i)
        for r in range(rows, ROWS):
            cost[r, :] = np.inf
        for start in range(0, m, TILE):
            end = min(start + TILE, m)
            for r in range(rows):
                out = cost[r, start + r : end + r]
                out[:] = 0.0
                for d in range(0, channels, 4):
                    a0, a1, a2, a3 = x[i + r, d], x[i + r, d + 1], x[i + r, d + 2], x[i + r, d + 3]
                    b0, b1, b2, b3 = y[d, start:end], y[d + 1, start:end], y[d + 2, start:end], y[d + 3, start:end]
                    for j in range(end - start):
                        g0, g1, g2, g3 = a0 - b0[j], a1 - b1[j], a2 - b2[j], a3 - b3[j]
                        out[j] = (((out[j] + g0 * g0) + g1 * g1) + g2 * g2) + g3 * g3
        c0, c1, c2, c3 = cost[0], cost[1], cost[2], cost[3]
        p0, p1, p2, p3 = np.inf, np.inf, np.inf, np.inf  # the cell that each row computed last
        q0, q1, q2 = np.inf, np.inf, np.inf  # and the one before
        corner, last = above[0], np.inf
        for s in range(m + ROWS - 1):
            top = above[s + 1] if s < m else np.inf
            best0 = corner if corner < top else top
            best1 = q0 if q0 < p0 else p0
            best2 = q1 if q1 < p1 else p1
            best3 = q2 if q2 < p2 else p2
            best0 = p0 if p0 < best0 else best0
            best1 = p1 if p1 < best1 else best1
            best2 = p2 if p2 < best2 else best2
            best3 = p3 if p3 < best3 else best3
            corner, q0, q1, q2 = top, p0, p1, p2
            p0, p1, p2, p3 = c0[s] + best0, c1[s] + best1, c2[s] + best2, c3[s] + best3
            if s == m + rows - 2:
                last = (p0, p1, p2, p3)[rows - 1]
            if s >= ROWS - 1:
                below[s - ROWS + 2] = p3
        if i + ROWS >= n:
            return last if last <= limit else np.inf
        above[0] = np.inf
        above, below = below, above
        above[0] = np.inf
        # What lies left of the first cell within the limit can never come back within it.
        while alive <= m and above[alive] > limit:
            alive += 1
        if alive > m:
            return np.inf
    return np.inf


def compiled() -> Any:
    """`squared_distance` as machine code, kept on disk where that is allowed; needs numba (the extra `metrics`)."""
    import importlib

    njit = importlib.import_module("numba").njit
    try:
        return njit(cache=True, error_model="numpy")(squared_distance)
    except RuntimeError:  # no folder to keep it in
        return njit(error_model="numpy")(squared_distance)
