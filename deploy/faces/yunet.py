"""YuNet, a small face-detection network, from the user's ONNX file through OpenCV.

It sees turned and small faces that the cascade misses, and gives five landmarks. Its boxes are tall and tight; they are
made into the cascade's squares, by a factor measured on nine real clips, because the student knows only crops cut from
those. Source of the network: OpenCV Zoo, face_detection_yunet_2023mar.onnx.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from student.detect import NOBODY, Effort, Faces, Picture, Region, cut_out

SIDE = 0.96
"""Side of the cascade's box per height of YuNet's; spread over the clips 0.03."""
RISE = 0.02
"""How far the cascade's centre lies above YuNet's, in heights."""
LEAST_SCORE = 0.6
WORK_PX: dict[Effort, int] = {"quick": 160, "usual": 240, "close": 320}
"""Longer side of what the network sees of a whole picture; in a region, a face is shown at FACE_PX or more."""
FACE_PX = 72
LEAST_SIDE_PX = 32


class YuNetDetector:
    """Made at once, loaded at the first picture."""

    name = "yunet"

    def __init__(self, model: Path) -> None:
        if not model.is_file():
            raise ValueError(
                f"{model}: no such file; give YuNet's ONNX file (face_detection_yunet_2023mar.onnx of OpenCV Zoo) as "
                "detector_model, or use detector haar"
            )
        self._model = model
        self._net: Any = None

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
        side = max(piece.shape[:2])
        scale = min(1.0, WORK_PX[effort] / side if region is None else FACE_PX / max(least_px, 1))
        rows = self._run(piece, scale)
        boxes = square(rows[:, :4] / scale) + np.array([left, top, left, top])
        width = boxes[:, 2] - boxes[:, 0]
        keep = (width >= least_px) & (width <= (most_px or np.inf))
        points = rows[:, 4:14].reshape(-1, 5, 2) / scale + np.array([left, top])
        return Faces(boxes[keep], rows[keep, 14], points[keep])

    def _run(self, piece: Picture, scale: float) -> NDArray[np.float64]:
        """The network's rows [n, 15] (x, y, w, h, five points, score) in pixels of the scaled piece, ordered."""
        size = (max(round(piece.shape[1] * scale), LEAST_SIDE_PX), max(round(piece.shape[0] * scale), LEAST_SIDE_PX))
        if self._net is None:
            self._net = self._load(size)
        self._net.setInputSize(size)
        pixels = cv2.cvtColor(cv2.resize(piece, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
        _, found = self._net.detect(pixels)
        return np.array(sorted(map(tuple, found)) if found is not None else [], np.float64).reshape(-1, 15)

    def _load(self, size: tuple[int, int]) -> Any:
        try:
            return cv2.FaceDetectorYN.create(str(self._model), "", size, LEAST_SCORE, 0.3, 50)
        except cv2.error as error:
            raise ValueError(
                f"{self._model}: OpenCV cannot load it as YuNet ({error.err}); download it again"
            ) from None


def square(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """YuNet's left, top, width, height [n, 4] → the cascade's square corners [n, 4]."""
    x, y, w, h = boxes.T
    centre_x, centre_y, half = x + w / 2, y + h / 2 - RISE * h, SIDE * h / 2
    return np.stack([centre_x - half, centre_y - half, centre_x + half, centre_y + half], axis=1)
