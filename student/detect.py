"""Finding faces in one picture: what a detector is, and the default one, OpenCV's own cascade.

The cascade needs no weights beyond those inside OpenCV's package. A detector is deterministic: the same pixels give the
same boxes in the same order. Other detectors must give boxes of the cascade's shape (square, brow to chin), because the
student was trained on crops cut from those.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Effort = Literal["quick", "usual", "close"]
"""quick notices a face and says roughly where; close also finds doubtful ones. Each costs twice its forerunner."""
Region = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside."""


@dataclass(frozen=True)
class Faces:
    """What a detector found: boxes [n, 4] as left, top, right, bottom in pixels, scores [n] in [0, 1].

    `points` [n, 5, 2] are right eye, left eye, nose tip, right and left mouth corner, where the detector gives them.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    points: NDArray[np.float64] | None = None


QUICK_PX = 27
"""The cascade's smallest window is 24 px; up to twice that it takes steps of two pixels, a quarter of the windows."""
STEP: dict[Effort, float] = {"quick": 1.2, "usual": 1.15, "close": 1.1}
"""From one size of the cascade's window to the next."""
NOBODY = Faces(np.zeros((0, 4)), np.zeros(0))


class Detector(Protocol):
    """Finds the faces of one picture."""

    name: str

    def find(
        self,
        picture: Picture,
        region: Region | None = None,
        *,
        least_px: int = 28,
        most_px: int = 0,
        effort: Effort = "close",
    ) -> Faces:
        """Faces in picture [H, W, 3] RGB, or in a region of it, `least_px` to `most_px` wide (0: as wide as can be)."""
        ...


MakeDetector = Callable[[], Detector]
"""How to make a detector; each tracker has its own."""


def cut_out(picture: Picture, region: Region | None) -> tuple[Picture, int, int]:
    """The part of the picture inside the region, and its left and top."""
    if region is None:
        return picture, 0, 0
    left, top = max(region[0], 0), max(region[1], 0)
    return picture[top : max(region[3], top), left : max(region[2], left)], left, top


class HaarDetector:
    """OpenCV's frontal-face cascade; the score grows with the number of windows that agree."""

    name = "haar"

    def __init__(self) -> None:
        folder = Path(cv2.__file__).parent / "data"
        self._cascade: Any = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))

    def find(
        self,
        picture: Picture,
        region: Region | None = None,
        *,
        least_px: int = 28,
        most_px: int = 0,
        effort: Effort = "close",
    ) -> Faces:
        """See Detector."""
        piece, left, top = cut_out(picture, region)
        if min(piece.shape[:2]) < max(least_px, 1):
            return NOBODY
        grey = cv2.cvtColor(piece, cv2.COLOR_RGB2GRAY)
        scale = min(1.0, QUICK_PX / max(least_px, 1)) if effort == "quick" else 1.0
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        least, most = int(least_px * scale), int(most_px * scale)
        sizes: dict[str, Any] = {"minSize": (least, least)} | ({"maxSize": (most, most)} if most else {})
        votes = 2 if effort == "quick" else 5 if region is None else 4
        found, counts = self._cascade.detectMultiScale2(grey, STEP[effort], votes, **sizes)
        rows = sorted((x, y, x + w, y + h, n) for (x, y, w, h), n in zip(found, counts, strict=True))
        table = np.array(rows, np.float64).reshape(-1, 5)  # an order that does not depend on the detector's threads
        return Faces(table[:, :4] / scale + np.array([left, top, left, top]), table[:, 4] / (table[:, 4] + 10))
