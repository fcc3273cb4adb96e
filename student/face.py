"""Find one face and keep it: OpenCV's Haar cascade in a tracked region, a steady box in between.

Deterministic and causal: training and the loop call the same code on the same pictures and get the same boxes. The
cascade needs no weights beyond OpenCV's own; it runs on a grey picture at most 320 pixels wide, on the whole picture
while no face is known, when the face was missed twice and once a second, else in the neighbourhood of the last box.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the picture."""

SEARCH_PX = 320
"""The longer side of the picture that the detector sees."""
DETECT_EVERY_FRAMES = 5
"""Between looks at a known face; its box is held meanwhile."""
SEEK_EVERY_FRAMES = 3
"""Between searches of the whole picture while there is no face."""
FULL_EVERY_FRAMES = 30
LEAST_PX = 28
"""The smallest face searched for, in the detector's picture: a sixth of the height of a 16:9 picture."""
HOLD_FRAMES = 30
"""A face not seen for this long is gone; until then its last box is held."""
STEADY = 0.3
"""Share of a new detection in the box of a still face; it grows to 1 as the face moves by a sixth of its width."""


@dataclass(frozen=True)
class FaceObservation:
    """Where the face is. `found` is False once it has been unseen for HOLD_FRAMES, or was never seen."""

    box: Box | None
    found: bool
    age_frames: int
    """Frames since the detector last confirmed the face."""


def _cascade() -> Any:
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))


class FaceTracker:
    """One face over time; `step` once per picture."""

    def __init__(self) -> None:
        self._detector = _cascade()
        self._box: NDArray[np.float64] | None = None
        self._age = 0
        self._frame = -1
        self._shape: tuple[int, ...] = ()

    def step(self, picture: NDArray[np.uint8]) -> FaceObservation:
        """Look at the next picture [H, W, 3] RGB."""
        self._frame += 1
        self._age += 1
        if self._age >= HOLD_FRAMES or picture.shape != self._shape:  # another camera mode: pixels mean something else
            self._box = None
        self._shape = picture.shape
        if self._frame % (SEEK_EVERY_FRAMES if self._box is None else DETECT_EVERY_FRAMES) == 0:
            self._detect(picture)
        box = None if self._box is None else (self._box[0], self._box[1], self._box[2], self._box[3])
        return FaceObservation(box, box is not None, self._age)

    def _detect(self, picture: NDArray[np.uint8]) -> None:
        scale = min(1.0, SEARCH_PX / max(picture.shape[:2]))
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        lost = self._box is None or self._age > 2 * DETECT_EVERY_FRAMES
        whole = lost or self._frame % FULL_EVERY_FRAMES == 0
        boxes = (self._search_all(grey, scale) if whole else self._search_near(grey, scale)) / scale
        boxes = boxes[np.array([self._plausible(box) for box in boxes], bool)]
        if not len(boxes):
            return
        chosen = boxes[self._nearest(boxes)]
        if self._box is not None:
            weight = min(1.0, STEADY + 4 * float(np.abs(chosen - self._box).max()) / (self._box[2] - self._box[0]))
            chosen = (1 - weight) * self._box + weight * chosen
        self._box, self._age = chosen, 0

    def _plausible(self, box: NDArray[np.float64]) -> bool:
        """Whether this can be the known face, or as good a one: a nostril or a pattern on the wall is much smaller."""
        if self._box is None or self._age >= HOLD_FRAMES // 2:
            return True
        return _overlap(self._box, box) > 0.3 or box[2] - box[0] > 0.8 * (self._box[2] - self._box[0])

    def _search_all(self, grey: NDArray[Any], scale: float) -> NDArray[np.float64]:
        """Faces of about the known size or more; without one, small ones too at every other look, for their cost."""
        least, step = max(LEAST_PX, min(grey.shape) // 6), 1.15
        if self._box is not None:
            least = max(LEAST_PX, int(0.6 * (self._box[2] - self._box[0]) * scale))
        elif self._frame % 2:
            least, step = LEAST_PX, 1.1
        return _corners(self._detector.detectMultiScale(grey, step, 5, minSize=(least, least)), 0, 0)

    def _search_near(self, grey: NDArray[Any], scale: float) -> NDArray[np.float64]:
        assert self._box is not None
        left, top, right, bottom = self._box * scale
        margin = 0.35 * (right - left)
        x0, y0 = max(0, int(left - margin)), max(0, int(top - margin))
        region = grey[y0 : int(bottom + margin), x0 : int(right + margin)]
        least = max(20, int(0.6 * (right - left)))
        if min(region.shape) < least:
            return np.zeros((0, 4))
        return _corners(self._detector.detectMultiScale(region, 1.1, 4, minSize=(least, least)), x0, y0)

    def _nearest(self, boxes: NDArray[np.float64]) -> int:
        """The face nearest to the known one; the largest when none is known."""
        if self._box is None:
            return int(np.argmax(boxes[:, 2] - boxes[:, 0]))
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        return int(np.argmin(np.linalg.norm(centres - (self._box[:2] + self._box[2:]) / 2, axis=1)))


def _corners(found: Any, x0: int, y0: int) -> NDArray[np.float64]:
    """Detections as corners [n, 4], in an order that does not depend on the detector's threads."""
    corners = sorted((x + x0, y + y0, x + w + x0, y + h + y0) for x, y, w, h in found)
    return np.array(corners, np.float64).reshape(-1, 4)


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
