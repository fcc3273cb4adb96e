"""How steady a face's box is, and how far behind: functions of the boxes of one clip, None where no face is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from student.face import Box

MOST_LAG = 12


def path_of(boxes: Sequence[Box | None]) -> NDArray[np.float64]:
    """Centre and width [T, 3] in shares of the clip's median width; NaN without a face."""
    rows = np.array([b or (np.nan,) * 4 for b in boxes])
    wide = rows[:, 2] - rows[:, 0]
    return np.stack([rows[:, [0, 2]].mean(1), rows[:, [1, 3]].mean(1), wide], axis=1) / max(np.nanmedian(wide), 1.0)


def jitter(path: NDArray[np.float64]) -> float:
    """Root mean square of how the box's speed changes from frame to frame, in shares of its width."""
    return float(np.sqrt(np.nanmean(np.diff(path, n=2, axis=0) ** 2)))


def errors_by_lag(path: NDArray[np.float64], plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean distance of the box's centre from where the plain way, smoothed, has it k frames before [MOST_LAG + 1]."""
    padded = np.pad(plain[:, :2], ((2, 2), (0, 0)), mode="edge")
    smooth = np.median(np.stack([padded[k : k + len(plain)] for k in range(5)]), axis=0)
    ends = [(path[MOST_LAG:, :2], smooth[MOST_LAG - k : len(smooth) - k]) for k in range(MOST_LAG + 1)]
    return np.array([np.nanmean(np.linalg.norm(a - b, axis=1)) for a, b in ends])


def first_box(boxes: Sequence[Box | None]) -> int | None:
    """Frame of the first face."""
    return next((t for t, box in enumerate(boxes) if box), None)
