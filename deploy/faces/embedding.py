"""A face as a vector: alike for one person, unlike for two.

The default needs no weights: what texture (local binary patterns) and colour lie where in the face. It tells apart the
few people in a room under one light, not a face in a thousand; for more, the user brings a recognition network.
Shapes: crops [112, 112, 3] RGB, vectors [d] of length 1; the cosine of two is their dot product.
"""

from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from student.detect import Picture

CROP_PX = 112
"""Side of the crop that every embedding takes."""
Vector = NDArray[np.float32]

_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


class Embedding(Protocol):
    """Turns face crops into vectors."""

    name: str
    same: float
    """A cosine above this is the same person."""
    other: float
    """A cosine below this is somebody else; between the two it is open."""
    alike: float
    """A cosine above this is the same look of the same person: nothing new to remember."""

    def embed(self, crop: Picture) -> Vector:
        """Unit vector [d] of a crop [112, 112, 3] RGB."""
        ...


def _uniform_codes() -> NDArray[np.uint8]:
    """Pattern of eight neighbours → 0…9: how many are brighter if they are in a row, else 9."""
    codes = np.zeros(256, np.uint8)
    for pattern in range(256):
        bits = [(pattern >> k) & 1 for k in range(8)]
        changes = sum(bits[k] != bits[k - 1] for k in range(8))
        codes[pattern] = sum(bits) if changes <= 2 else 9
    return codes


_CODES = _uniform_codes()


def texture(grey: NDArray[np.uint8], cells: int = 4) -> NDArray[np.float32]:
    """Share of each of the ten uniform patterns in each of cells x cells parts, [cells * cells * 10]."""
    middle = grey[1:-1, 1:-1]
    height, width = middle.shape
    pattern = np.zeros(middle.shape, np.uint8)
    for k, (dy, dx) in enumerate(_NEIGHBOURS):
        pattern |= (grey[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] > middle).astype(np.uint8) << k
    return _shares(_CODES[pattern], 10, cells)


def colour(crop: Picture, cells: int = 4) -> NDArray[np.float32]:
    """Share of 8 hues, 4 saturations and 4 brightnesses in each of cells x cells parts, [cells * cells * 16]."""
    hsv = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2HSV), np.uint8)
    kinds = ((0, 23, 8), (1, 64, 4), (2, 64, 4))
    return np.concatenate([_shares(hsv[..., k] // width, bins, cells) for k, width, bins in kinds]) / np.float32(3)


def _shares(values: NDArray[Any], bins: int, cells: int) -> NDArray[np.float32]:
    rows, columns = (np.arange(n) * cells // n for n in values.shape)
    place = (rows[:, None] * cells + columns).astype(np.int64) * bins + values
    return (np.bincount(place.ravel(), minlength=cells * cells * bins) / values.size).astype(np.float32)


class HistogramEmbedding:
    """Texture and colour histograms; no weights. All faces are alike in them, so that the cosines lie close together.

    17 real clips, each with itself 1 s and more apart: 99 % above 0.951; with the others: 99 % below 0.931.
    """

    name = "histogram"
    same, other, alike = 0.96, 0.91, 0.985

    def embed(self, crop: Picture) -> Vector:
        """See Embedding."""
        small = np.asarray(cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA), np.uint8)
        grey = np.asarray(cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (0, 0), 1), np.uint8)
        parts = np.concatenate([texture(grey), colour(small)])
        return unit(np.sqrt(parts))


def unit(vector: NDArray[Any]) -> Vector:
    """The vector at length 1; zeros stay zeros."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).astype(np.float32)


def crop_of(picture: Picture, box: NDArray[np.float64]) -> Picture:
    """The face inside the box [112, 112, 3]; what lies outside the picture repeats its edge."""
    scale = CROP_PX / max(float(box[2] - box[0]), 1.0)
    move = np.array([[scale, 0, -box[0] * scale], [0, scale, -box[1] * scale]])
    size = (CROP_PX, CROP_PX)
    return np.asarray(
        cv2.warpAffine(picture, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


class OnnxEmbedding:
    """SFace or ArcFace from the user's file, run by ONNX Runtime on one thread."""

    def __init__(self, path: Path, name: str) -> None:
        if not path.is_file():
            raise ValueError(f"{path}: no such file; give the ONNX file of {name} as embedding_model, or use histogram")
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.name = name
        self.same, self.other = (0.45, 0.25) if name == "sface" else (0.4, 0.2)
        self.alike = 0.95
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def embed(self, crop: Picture) -> Vector:
        """See Embedding. SFace takes levels 0…255, ArcFace -1…1; both RGB, channels first."""
        pixels = crop.transpose(2, 0, 1)[None].astype(np.float32)
        if self.name == "arcface":
            pixels = (pixels - 127.5) / 127.5
        out: Any = self._session.run(None, {self._input: pixels})[0]
        return unit(np.asarray(out).ravel())


def load(name: str, model: Path | None) -> Embedding:
    """The embedding named; raises ValueError when its file is missing."""
    if name == "histogram":
        return HistogramEmbedding()
    if name not in ("sface", "arcface"):
        raise ValueError(f"unknown embedding {name!r}; known: histogram, sface, arcface")
    if model is None:
        raise ValueError(f"{name} needs a model file, none is given; set embedding_model to its ONNX file")
    return OnnxEmbedding(model, name)
