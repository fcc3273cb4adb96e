"""Where the faces went since the last picture: Lucas-Kanade on a grid of points in each, one call for all.

Shapes: grey pictures [H, W] at the detector's scale, boxes [4] in the same pixels.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
GRID = np.array([(x, y) for y in (0.3, 0.4, 0.5, 0.6) for x in (0.25, 0.38, 0.5, 0.62, 0.75)])
"""Points inside a face box: brows to nose, not the mouth, which moves by itself."""
LEAST_POINTS = 6
MOST_ERROR = 20.0
"""Grey levels between a point's neighbourhood and where it is found."""


def moved(before: Grey, now: Grey, boxes: list[NDArray[np.float64]]) -> list[NDArray[np.float64] | None]:
    """Displacement (x, y) in pixels of each box; None where too few points could be followed."""
    if not boxes:
        return []
    points = np.concatenate([box[:2] + GRID * (box[2:] - box[:2]) for box in boxes]).astype(np.float32)
    found, status, error = cv2.calcOpticalFlowPyrLK(
        before, now, points[:, None], np.zeros(0), winSize=(11, 11), maxLevel=2
    )
    good = (status[:, 0] == 1) & (error[:, 0] < MOST_ERROR)
    steps = np.asarray(found[:, 0] - points, np.float64)
    return [
        np.median(steps[part][good[part]], axis=0) if good[part].sum() >= LEAST_POINTS else None
        for part in (slice(k * len(GRID), (k + 1) * len(GRID)) for k in range(len(boxes)))
    ]
