"""Search a whole picture for faces over several frames, a few window sizes in each, so that no frame takes long.

The cascade tries one size of its window after the other and counts votes at the end. Both can be divided: the same
sizes in several portions, largest first, then the same count give to the last digit what `HaarDetector.find` gives.
Whoever wants the largest face only is told as soon as no smaller window can change it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from student.detect import NOBODY, STEP, Effort, Faces, Picture

WINDOW_PX = 24
"""The cascade's own window; twice that and above it goes by single pixels of the scaled picture, below by two."""
VOTES, ALIKE = 5, 0.2
"""Windows that must agree, and how much they may differ, in widths: as in `HaarDetector.find`."""
PORTION = 80.0
"""Cost worth a frame of its own, in roots of windows: about 3 ms."""
SETTLED = 0.5
"""A window narrower than this share of a face cannot vote for it, nor for one that would replace it."""


@dataclass(frozen=True)
class Asked:
    """What is to be searched for, as in `Detector.find`; the picture must stay as it is."""

    picture: Picture
    least_px: int
    most_px: int
    effort: Effort

    def is_like(self, other: "Asked") -> bool:
        """Whether the same is searched for, in another picture of the same size."""
        mine, theirs = ((a.picture.shape, a.least_px, a.most_px, a.effort) for a in (self, other))
        return mine == theirs


class HaarSearch:
    """One search of a whole picture at a time; `begin` drops an unfinished one."""

    def __init__(self) -> None:
        folder = Path(cv2.__file__).parent / "data"
        self._cascade: Any = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
        self._portions: list[list[int]] = []
        self._windows: list[tuple[int, int, int, int]] = []
        self._grey: Any = None
        self._step, self._largest = 1.1, False
        self._cascade.detectMultiScale(np.zeros((48, 48), np.uint8))  # the first call takes longer than a frame

    def begin(self, asked: Asked, *, frames: int, largest: bool = False) -> None:
        """Take what is asked for ("usual" or "close"); the search will take `frames` calls of `step` at most.

        `largest`: nobody wants any face but the largest, which may be known before the search is over.
        """
        self._grey = cv2.cvtColor(asked.picture, cv2.COLOR_RGB2GRAY)
        self._step, self._largest, self._windows = STEP[asked.effort], largest, []
        self._portions = portions(self._grey.shape, self._step, asked.least_px, asked.most_px, frames)

    def step(self) -> Faces | None:
        """Search on; what was found once the search is over, None before."""
        if not self._portions:
            return NOBODY
        sizes = self._portions.pop(0)
        least, most = (sizes[-1],) * 2, (sizes[0],) * 2
        found = self._cascade.detectMultiScale(self._grey, self._step, 0, minSize=least, maxSize=most)
        self._windows += [_whole(window, sizes) for window in found]
        faces = _counted(self._windows, self._grey.shape)
        if self._largest and len(faces.boxes) and self._portions:
            widest = float((faces.boxes[:, 2] - faces.boxes[:, 0]).max())
            self._portions = self._portions if self._portions[0][0] >= SETTLED * widest else []
        return None if self._portions else faces


def portions(shape: tuple[int, ...], step: float, least_px: int, most_px: int, frames: int) -> list[list[int]]:
    """The window sizes from `least_px` to `most_px` (0: any) in at most `frames` portions of like cost, largest first.

    `shape` is the picture's height and width. Fewer portions are made when the whole costs little.
    """
    sizes = _sizes(step, min(*shape, most_px or min(shape)), least_px)
    costs = [_cost(shape, size) for size in sizes]
    most = max([PORTION, *costs])
    while True:
        parts: list[list[int]] = []
        spent = 0.0
        for size, cost in zip(sizes, costs, strict=True):
            if not parts or spent + cost > most:
                parts.append([])
                spent = 0.0
            parts[-1].append(size)
            spent += cost
        if len(parts) <= frames:
            return parts
        most *= 1.05


def _sizes(step: float, most: int, least: int) -> list[int]:
    """Widths of the cascade's window from most to least, largest first."""
    sizes: list[int] = []
    factor = 1.0
    while (size := round(WINDOW_PX * factor)) <= most:
        sizes.append(size)
        factor *= step
    return [size for size in reversed(sizes) if size >= least]


def _cost(shape: tuple[int, ...], size: int) -> float:
    """Root of the number of windows of one size: measured, time grows so, because windows on a face take longest."""
    height, width = (max(side * WINDOW_PX / size - WINDOW_PX, 0) for side in shape)
    return float(np.sqrt(height * width)) / (1 if size > 2 * WINDOW_PX else 2)


def _whole(window: Any, sizes: list[int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of a window without what OpenCV cut off at the picture's right and lower edge."""
    left, top, width, height = (int(v) for v in window)
    side = min(size for size in sizes if size >= max(width, height))
    return left, top, side, side


def _counted(windows: list[tuple[int, int, int, int]], shape: tuple[int, ...]) -> Faces:
    """Windows that agree, as faces; ordered, with scores, as `HaarDetector.find` gives them."""
    found, counts = cv2.groupRectangles(windows, VOTES, ALIKE)
    right, bottom = shape[1], shape[0]
    rows = sorted(
        (x, y, min(x + w, right), min(y + h, bottom), n)
        for (x, y, w, h), n in zip(found, np.ravel(counts), strict=True)
    )
    table = np.array(rows, np.float64).reshape(-1, 5)
    return Faces(table[:, :4], table[:, 4] / (table[:, 4] + 10))
