"""Draw the head from its joint sensors: what the motors really did, not what they were told.

A painter of our own, so that a picture needs no graphics card and is the same everywhere. Pictures [H, W, 3] RGB.
"""

import numpy as np
from numpy.typing import NDArray

from deploy.head.model import NAMES
from dyad.synthetic.pen import Pen, curve, darker, ellipse, mirrored, mix

UNIT_M = 0.085
"""Half the head's width: joint travel in metres becomes face coordinates."""
SHELL, PLATE, INK = (226.0, 231.0, 238.0), (245.0, 247.0, 250.0), (36.0, 44.0, 60.0)
LIPS, GLOW, IRIS = (214.0, 112.0, 110.0), (255.0, 150.0, 130.0), (38.0, 150.0, 168.0)
SHADOW = (150.0, 160.0, 178.0)


class HeadPainter:
    """Draws the head at one size."""

    def __init__(self, size_px: int = 480) -> None:
        self.size_px = size_px
        y, x = np.mgrid[0:size_px, 0:size_px] / size_px
        glow = np.exp(-(((x - 0.5) / 0.5) ** 2 + ((y - 0.42) / 0.55) ** 2))[:, :, None]
        self._background = (np.array([22, 27, 40]) + glow * np.array([42, 52, 74])).astype(np.uint8)

    def draw(self, joints: NDArray[np.float64]) -> NDArray[np.uint8]:
        """One picture from joint positions [30] in metres and radians."""
        q = dict(zip(NAMES, (float(v) for v in joints), strict=True))
        picture = self._background.copy()
        pen = Pen(picture, (0.5 * self.size_px, 0.475 * self.size_px), 0.275 * self.size_px)
        self._neck(pen)
        pen.pose(q["neck_yaw"], q["neck_pitch"], q["neck_roll"])
        drop = 0.75 * max(q["jaw"], 0.0)
        self._shell(pen, drop)
        for side, name in ((1, "right"), (-1, "left")):
            self._cheek(pen, side, q[f"cheek_{name}"] / UNIT_M)
            self._eye(pen, side, name, q)
            self._brow(pen, side, name, q)
        self._nose(pen, q["nose"] / UNIT_M)
        self._mouth(pen, q, drop)
        return picture

    def _neck(self, pen: Pen) -> None:
        for k in range(6):
            y = 1.12 + 0.11 * k
            pen.blob((0, y), (0.46 + 0.03 * k, 0.1), mix(INK, SHADOW, 0.25 + 0.09 * (k % 2)), -0.9)
        shoulders = [(-2.2, 2.2), (-1.5, 1.72), (-0.6, 1.62), (0.6, 1.62), (1.5, 1.72), (2.2, 2.2)]
        pen.fill(curve(shoulders), darker(SHELL, 0.25), -0.9)

    def _shell(self, pen: Pen, drop: float) -> None:
        for side in (-1, 1):
            pen.blob((side * 1.02, -0.1), (0.13, 0.3), darker(SHELL, 0.35), -0.2)
            pen.blob((side * 1.06, -0.1), (0.07, 0.18), IRIS, -0.2)
        chin = 1.24 + 0.6 * drop
        right = [(0, -1.34), (0.6, -1.24), (0.97, -0.78), (1.02, -0.1), (0.9, 0.6), (0.5, chin - 0.16), (0, chin)]
        outline = np.vstack([curve(right), mirrored(curve(right)[::-1], -1)])
        pen.fill(outline, SHELL)
        for side in (-1, 1):
            pen.shade(mirrored([(1.0, -0.6), (0.8, -0.2), (0.76, 0.6), (0.95, 0.6)], side), SHADOW, 0.7, 0.12)
        inner = [(0, -0.92), (0.5, -0.86), (0.8, -0.5), (0.82, 0.1), (0.7, 0.6), (0.36, chin - 0.3), (0, chin - 0.16)]
        mask = np.vstack([curve(inner), mirrored(curve(inner)[::-1], -1)])
        pen.shade(mask, SHADOW, 0.5, 0.05)
        pen.fill(mask * (0.985, 0.985), PLATE)
        pen.shade(ellipse((0, -1.05), (0.45, 0.14)), (255, 255, 255), 0.8, 0.12)
        seam = [
            (-0.74, 0.48),
            (-0.5, 0.86 + 0.3 * drop),
            (0, 0.98 + 0.5 * drop),
            (0.5, 0.86 + 0.3 * drop),
            (0.74, 0.48),
        ]
        pen.line(curve(seam), mix(PLATE, SHADOW, 0.7), 0.014)

    def _cheek(self, pen: Pen, side: int, raised: float) -> None:
        strength = min(1.0, 0.16 + 7.0 * max(raised, 0.0))
        pen.shade(ellipse((side * 0.52, 0.24 - 0.7 * raised), (0.19, 0.12)), GLOW, strength, 0.07)
        if raised > 0.02:
            arc = curve([(0.33, 0.2 - raised), (0.52, 0.1 - 1.2 * raised), (0.7, 0.18 - raised)])
            pen.line(mirrored(arc, side), mix(PLATE, SHADOW, min(1.0, 9 * raised)), 0.022)

    def _eye(self, pen: Pen, side: int, name: str, q: dict[str, float]) -> None:
        x0, y0, r = side * 0.4, -0.24, 0.235
        upper = max(0.135 + q[f"lid_upper_{name}"] / UNIT_M, -0.04)
        lower = 0.13 - q[f"lid_lower_{name}"] / UNIT_M
        pen.shade(ellipse((x0, y0), (0.3, 0.24)), SHADOW, 0.55, 0.04)
        top = curve([(x0 - r, y0), (x0 - 0.5 * r, y0 - 0.92 * upper), (x0 + 0.5 * r, y0 - 0.92 * upper), (x0 + r, y0)])
        low = curve([(x0 + r, y0), (x0 + 0.5 * r, y0 + 0.92 * lower), (x0 - 0.5 * r, y0 + 0.92 * lower), (x0 - r, y0)])
        if upper + lower > 0.03:
            opening = np.vstack([top, low])
            pen.fill(opening, (252, 253, 255))
            centre = (x0 + 0.25 * q[f"eye_yaw_{name}"], y0 - 0.005 - 0.25 * q["eye_pitch"])
            self._iris(pen, centre, opening)
        pen.line(top, INK, 0.034)
        pen.line(low, mix(INK, SHADOW, 0.5), 0.018)

    def _iris(self, pen: Pen, centre: tuple[float, float], opening: NDArray[np.float64]) -> None:
        with pen.inside(opening) as sheet:
            sheet.blob(centre, (0.135, 0.135), darker(IRIS, 0.45))
            sheet.blob(centre, (0.118, 0.118), IRIS)
            sheet.blob(centre, (0.062, 0.062), (14, 18, 26))
            sheet.blob((centre[0] + 0.045, centre[1] - 0.05), (0.03, 0.03), (255, 255, 255))

    def _brow(self, pen: Pen, side: int, name: str, q: dict[str, float]) -> None:
        inner = q[f"brow_inner_{name}"] / UNIT_M
        outer = q[f"brow_outer_{name}"] / UNIT_M
        near = 0.19 - q[f"brow_pinch_{name}"] / UNIT_M
        line = curve([(near, -0.56 - inner), (0.4, -0.63 - 0.55 * inner - 0.5 * outer), (0.66, -0.56 - outer)])
        pen.line(mirrored(line, side), INK, 0.072)

    def _nose(self, pen: Pen, raised: float) -> None:
        pen.shade(ellipse((0, 0.12), (0.1, 0.06)), SHADOW, 0.6, 0.04)
        pen.line(
            curve([(-0.08, 0.14 - raised), (0, 0.185 - raised), (0.08, 0.14 - raised)]), mix(SHADOW, INK, 0.35), 0.024
        )
        if raised > 0.015:
            ink = mix(PLATE, mix(SHADOW, INK, 0.4), min(1.0, 11 * raised))
            for k in range(3):
                y = -0.16 + 0.075 * k
                pen.line(curve([(-0.1, y + 0.02), (0, y - 0.025), (0.1, y + 0.02)]), ink, 0.022)

    def _mouth(self, pen: Pen, q: dict[str, float], drop: float) -> None:
        y, thin = 0.575, q["lip_thin"] / UNIT_M
        corners = [
            (side * (0.34 + q[f"corner_out_{n}"] / UNIT_M), y - q[f"corner_up_{n}"] / UNIT_M)
            for side, n in ((-1, "left"), (1, "right"))
        ]
        width = (corners[1][0] - corners[0][0]) / 2
        gap = 1.5 * drop
        up = y - q["lip_upper"] / UNIT_M - 0.25 * gap
        low = y - q["lip_lower"] / UNIT_M + 0.75 * gap + 0.012
        plump = max(0.075 + 0.32 * (0.34 - width) - 0.5 * thin, 0.018)
        middle = (corners[0][1] + corners[1][1]) / 2
        upper_y, lower_y = (2 * up + middle) / 3, (2 * low + middle) / 3
        top = curve([corners[0], (-0.5 * width, upper_y), (0.5 * width, upper_y), corners[1]])
        bottom = curve([corners[1], (0.5 * width, lower_y), (-0.5 * width, lower_y), corners[0]])
        pen.fill(np.vstack([top, bottom]), (52, 26, 34))
        if low - up > 0.05:
            teeth = curve([(-0.62 * width, up + 0.01), (0, up + 0.0), (0.62 * width, up + 0.01)])
            edge = teeth[::-1] + np.array([0.0, min(0.06, 0.6 * (low - up))])
            pen.fill(np.vstack([teeth, edge]), (246, 246, 240))
        pen.line(top, darker(LIPS, 0.1), plump)
        pen.line(bottom, LIPS, plump * 1.15)
        n = len(bottom)
        shine = curve([bottom[n // 3], bottom[n // 2] + np.array([0.0, 0.01]), bottom[2 * n // 3]])
        pen.line(shine, mix(LIPS, (255, 255, 255), 0.45), 0.02)
        self._mouth_marks(pen, q, corners, drop)

    def _mouth_marks(self, pen: Pen, q: dict[str, float], corners: list[tuple[float, float]], drop: float) -> None:
        """Dimples beside the corners, the raised chin."""
        for (x, yc), name, side in ((corners[0], "left", -1), (corners[1], "right", 1)):
            dimple = q[f"dimple_{name}"] / UNIT_M
            if dimple > 0.01:
                ink = mix(PLATE, mix(SHADOW, INK, 0.35), min(1.0, 10 * dimple))
                near, far = x + side * 0.09, x + side * 0.125
                pen.line(curve([(near, yc - 0.07), (far, yc), (near, yc + 0.07)]), ink, 0.026)
        chin = q["chin"] / UNIT_M
        if chin > 0.01:
            ink = mix(PLATE, mix(SHADOW, INK, 0.3), min(1.0, 10 * chin))
            yc = 0.98 + 0.45 * drop - chin
            pen.line(curve([(-0.15, yc), (0, yc - 0.07), (0.15, yc)]), ink, 0.028)
