"""A pen that draws on a turned head: anti-aliased polygons and lines on an ellipsoid, with sub-pixel precision.

Face coordinates: x to the viewer's right, y down, in half face widths; depth follows from an ellipsoid.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dyad.synthetic.identity import Colour

Points = Sequence[tuple[float, float]] | NDArray[np.float64]
_SHIFT = 4


@cache
def _spline_weights(count: int, per_span: int) -> NDArray[np.float64]:
    """Catmull-Rom weights [samples, count] on `count` points, the ends extended straight."""
    extended = np.zeros((count + 2, count))
    extended[1:-1] = np.eye(count)
    extended[0, :2], extended[-1, -2:] = (2, -1), (-1, 2)
    t = np.linspace(0, 1, per_span, endpoint=False)[:, None]
    rows = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(extended, extended[1:], extended[2:], extended[3:], strict=False)
    ]
    return np.vstack([*rows, extended[-2:-1]])


def curve(points: Points, per_span: int = 6) -> NDArray[np.float64]:
    """Catmull-Rom spline through `points` [N, 2]."""
    return _spline_weights(len(points), per_span) @ np.asarray(points, float)


class Pen:
    """Draws in face coordinates onto one picture."""

    def __init__(self, picture: NDArray[np.uint8], centre_px: tuple[float, float], unit_px: float) -> None:
        self.picture, self._centre, self.unit_px = picture, np.array(centre_px), unit_px
        self._turn = np.eye(3)

    @contextmanager
    def inside(self, outline: Points) -> Generator["Pen"]:
        """A pen for the same head whose ink shows only inside `outline` [N, 2]."""
        edge = self.place(outline)
        low = np.maximum(np.floor(edge.min(axis=0)).astype(int) - 1, 0)
        high = np.ceil(edge.max(axis=0)).astype(int) + 2
        region = self.picture[low[1] : high[1], low[0] : high[0]]
        x, y = self._centre - low
        sheet = Pen(region.copy(), (float(x), float(y)), self.unit_px)
        sheet._turn = self._turn
        yield sheet
        if region.size == 0:
            return
        mask = np.zeros(region.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round((edge - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        alpha = mask[:, :, None].astype(np.float32) / 255
        region[:] = (region * (1 - alpha) + sheet.picture * alpha).astype(np.uint8)

    def pose(self, yaw: float, pitch: float, roll: float) -> None:
        """Turn the head, radians."""
        cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
        about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        self._turn = about_z @ about_x @ about_y

    def place(self, points: Points, lift: float = 0.0) -> NDArray[np.float64]:
        """Face coordinates [N, 2] → pixels [N, 2]; `lift` raises points above the ellipsoid (nose, glasses)."""
        p = np.asarray(points, float).reshape(-1, 2)
        depth = np.sqrt(np.maximum(0.02, 1 - p[:, 0] ** 2 - (p[:, 1] / 1.4) ** 2)) + lift
        turned = p @ self._turn[:2, :2].T + depth[:, None] * self._turn[:2, 2]
        return self._centre + self.unit_px * turned

    def _fixed(self, points: Points, lift: float) -> NDArray[np.int32]:
        return np.round(self.place(points, lift) * 2**_SHIFT).astype(np.int32)

    def fill(self, points: Points, colour: Colour, lift: float = 0.0) -> None:
        """A filled polygon."""
        cv2.fillPoly(self.picture, [self._fixed(points, lift)], colour, cv2.LINE_AA, _SHIFT)

    def line(self, points: Points, colour: Colour, width: float, lift: float = 0.0) -> None:
        """An open line; `width` in face coordinates, at least a pixel."""
        thick = max(1, round(width * self.unit_px))
        cv2.polylines(self.picture, [self._fixed(points, lift)], False, colour, thick, cv2.LINE_AA, _SHIFT)

    def blob(self, centre: tuple[float, float], radii: tuple[float, float], colour: Colour, lift: float = 0.0) -> None:
        """A filled ellipse."""
        self.fill(ellipse(centre, radii), colour, lift)

    def shade(self, points: Points, colour: Colour, strength: float, soft: float = 0.06) -> None:
        """A soft translucent stain; `strength` in [0, 1], `soft` its blur in face coordinates."""
        if strength < 0.02:
            return
        fixed = self._fixed(points, 0.0)
        low = np.maximum(fixed.min(axis=0) // 2**_SHIFT - int(3 * soft * self.unit_px) - 2, 0)
        high = fixed.max(axis=0) // 2**_SHIFT + int(3 * soft * self.unit_px) + 3
        region = self.picture[low[1] : high[1], low[0] : high[0]]
        if region.size == 0:
            return
        mask = np.zeros(region.shape[:2], np.uint8)
        cv2.fillPoly(mask, [fixed - low * 2**_SHIFT], 255, cv2.LINE_AA, _SHIFT)
        side = 2 * max(1, int(1.5 * soft * self.unit_px)) + 1
        stain = cv2.blur(cv2.blur(mask, (side, side)), (side, side))
        alpha = (stain.astype(np.int32) * round(strength * 256) >> 8)[:, :, None]
        region[:] = region + ((np.array(colour, np.int32) - region) * alpha >> 8)


@cache
def _circle(points: int) -> NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.column_stack([np.cos(t), np.sin(t)])


def ellipse(centre: tuple[float, float], radii: tuple[float, float], points: int = 28) -> NDArray[np.float64]:
    """Points on an ellipse."""
    return _circle(points) * radii + centre


def mirrored(points: Points, side: int) -> NDArray[np.float64]:
    """Points of the viewer's right half, flipped for side -1."""
    return np.asarray(points, float) * (side, 1)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Colour between `a` (0) and `b` (1)."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def darker(colour: Colour, share: float) -> Colour:
    """`colour` towards a warm shadow."""
    return mix(colour, (40.0, 18.0, 14.0), share)
