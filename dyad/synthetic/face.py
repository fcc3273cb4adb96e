"""The speaker's face: a vector drawing in which every one of the 17 action units is visible.

Drawn back to front on a turned head: hair, neck, skin, eyes, brows, nose, mouth, folds. Each unit moves the features
that it moves in FACS and leaves the folds that it leaves; nothing encodes a unit that a real face would not show.
Shapes: pictures [H, W, 3] RGB.
"""

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import SEED17
from dyad.synthetic import mouth
from dyad.synthetic.identity import Identity
from dyad.synthetic.pen import Pen, curve, darker, ellipse, mirrored, mix

SIZE_PX = 224
Au = dict[str, float]


class FaceArtist:
    """Draws one identity."""

    def __init__(self, who: Identity, rng: np.random.Generator, size_px: int = SIZE_PX) -> None:
        self.who, self.size_px = who, size_px
        self._shadow = darker(who.skin, 0.34)
        self._light = np.round(who.light * 256).astype(np.int32)
        self._fold = darker(who.skin, 0.5)
        self._brow_ink = mix(
            darker(who.hair, 0.3), darker(who.skin, 0.75), 0.6 if sum(who.hair) > 0.6 * sum(who.skin) else 0.2
        )
        self._grains = [np.round(rng.normal(0, who.grain, (size_px, size_px, 1))).astype(np.int16) for _ in range(4)]

    def draw(self, units: NDArray[np.float32], pose: NDArray[np.float32], frame: int) -> NDArray[np.uint8]:
        """One picture: `units` [17] in [0, 1], `pose` [6] = yaw, pitch, roll, gaze x, gaze y, eyelid closure."""
        au = dict(zip(SEED17.units, (float(v) for v in units), strict=True))
        who = self.who
        picture = who.background.copy()
        centre = (who.place[0] * self.size_px, who.place[1] * self.size_px)
        pen = Pen(picture, centre, who.zoom * self.size_px)
        self._body(pen, float(pose[0]))
        pen.pose(float(pose[0]), float(pose[1]), float(pose[2]))
        self._head(pen, au)
        for side in (-1, 1):
            self._eye(pen, au, side, pose)
            self._brow(pen, au, side)
        self._forehead(pen, au)
        self._nose(pen, au)
        self._cheeks(pen, au)
        mouth.mouth(pen, who, au)
        mouth.chin(pen, who, au)
        self._hair(pen)
        if who.glasses:
            self._glasses(pen)
        lit = (picture.astype(np.int32) * self._light >> 8) + self._grains[frame % 4]
        return lit.clip(0, 255).astype(np.uint8)

    def _body(self, pen: Pen, yaw: float) -> None:
        who, h = self.who, self.who.height
        if who.hair_kind in (2, 3):
            pen.blob((0, -0.05), (1.28, 1.5 if who.hair_kind == 3 else 1.3), darker(who.hair, 0.25), -0.9)
        pen.fill([(-0.5, 0.7), (0.5, 0.7), (0.55, h + 0.6), (-0.55, h + 0.6)], darker(who.skin, 0.22))
        pen.fill(
            curve(
                [
                    (-2.3, h + 1.6),
                    (-1.7, h + 0.5),
                    (-0.6, h + 0.22),
                    (0, h + 0.42),
                    (0.6, h + 0.22),
                    (1.7, h + 0.5),
                    (2.3, h + 1.6),
                ]
            ),
            who.cloth,
        )

    def _head(self, pen: Pen, au: Au) -> None:
        who = self.who
        drop = 0.16 * au["AU26"] - 0.03 * au["AU17"]
        w, h = who.width, who.height
        for side in (-1, 1):
            pen.blob((side * 1.0 * w, 0.02), (0.13, 0.24), darker(who.skin, 0.12), -0.25)
        right = [
            (0, -h),
            (0.55 * w, -h * 0.93),
            (0.92 * w, -0.5),
            (0.98 * w, 0.05),
            (0.86 * w, 0.6),
            (0.52 * w, h - 0.2 + drop),
            (0, h + drop),
        ]
        outline = np.vstack([curve(right), mirrored(curve(right)[::-1], -1)])
        pen.fill(outline, who.skin)
        for side in (-1, 1):
            pen.shade(
                mirrored([(0.98, -0.4), (0.75, -0.2), (0.72, 0.6), (0.5, h + drop - 0.1), (0.9, 0.7)], side),
                self._shadow,
                0.4,
                0.12,
            )
            pen.shade(ellipse((side * 0.5, 0.28), (0.28, 0.2)), mix(who.skin, (255, 190, 170), 0.5), 0.4, 0.12)
        pen.shade(ellipse((0, -0.75), (0.5, 0.25)), mix(who.skin, (255, 250, 240), 0.6), 0.35, 0.15)
        if who.beard:
            jaw = [
                (-0.9, 0.2),
                (-0.74, 0.5),
                (-0.45, 0.48),
                (0, 0.42),
                (0.45, 0.48),
                (0.74, 0.5),
                (0.9, 0.2),
                (0.8, 0.75),
                (0.5, h - 0.2 + drop),
                (0, h + drop),
                (-0.5, h - 0.2 + drop),
                (-0.8, 0.75),
            ]
            pen.shade(jaw, who.hair, who.beard, 0.08)

    def _eye(self, pen: Pen, au: Au, side: int, pose: NDArray[np.float32]) -> None:
        who = self.who
        x0, y0, r = side * who.eye_gap, -0.2, 0.2 * who.eye_size
        closed = float(pose[5])
        upper = (0.115 + 0.075 * au["AU5"] - 0.03 * au["AU7"] - 0.02 * au["AU9"]) * (1 - closed) * who.eye_size
        lower = (0.075 - 0.075 * au["AU7"] - 0.045 * au["AU6"] - 0.02 * au["AU12"]) * who.eye_size * (1 - 0.6 * closed)
        pen.shade(ellipse((x0, y0 - 0.03), (0.3, 0.2)), self._shadow, 0.85, 0.06)
        corners = np.array([(x0 - r, y0 + 0.01), (x0 + r, y0 + 0.01)])
        top = curve([corners[0], (x0 - 0.45 * r, y0 - upper), (x0 + 0.45 * r, y0 - upper), corners[1]])
        bottom = curve([corners[1], (x0 + 0.5 * r, y0 + lower), (x0 - 0.5 * r, y0 + lower), corners[0]])
        if upper + lower > 0.02:
            pen.fill(np.vstack([top, bottom]), (240, 238, 234))
            gx, gy = x0 + 0.09 * float(pose[3]), y0 - 0.025 + 0.05 * float(pose[4])
            self._iris(pen, (gx, gy), np.vstack([top, bottom]))
        pen.line(top, darker(who.hair, 0.5), 0.045)
        pen.line(bottom, self._fold, 0.012)
        crease = 0.05 + 0.03 * au["AU5"]
        pen.line(curve([(x0 - r, y0 - 0.06), (x0, y0 - upper - crease), (x0 + r, y0 - 0.06)]), self._fold, 0.014)
        self._lids(pen, au, side, x0, y0, r)

    def _iris(self, pen: Pen, centre: tuple[float, float], opening: NDArray[np.float64]) -> None:
        """Iris, pupil and glint, clipped to the opening of the lids."""
        with pen.inside(opening) as sheet:
            sheet.blob(centre, (0.098, 0.098), self.who.iris)
            sheet.blob(centre, (0.05, 0.05), (18, 14, 14))
            sheet.blob((centre[0] + 0.03, centre[1] - 0.035), (0.02, 0.02), (250, 250, 250))

    def _lids(self, pen: Pen, au: Au, side: int, x0: float, y0: float, r: float) -> None:
        """What the lid tightener and the cheek raiser leave around the eye."""
        tight = au["AU7"]
        pouch = y0 + 0.12 - 0.03 * tight - 0.05 * au["AU6"]
        strength = 0.35 + 0.65 * max(tight, au["AU6"])
        pen.shade(
            curve([(x0 - r, y0 + 0.08), (x0, pouch + 0.05), (x0 + r, y0 + 0.08), (x0, pouch)]),
            self._fold,
            strength * 0.5,
            0.02,
        )
        if tight > 0.05:
            pen.line(
                curve([(x0 - 0.9 * r, y0 + 0.085), (x0, y0 + 0.1), (x0 + 0.9 * r, y0 + 0.085)]),
                mix(self.who.skin, self._fold, tight),
                0.022,
            )
        for k in range(3):  # crow's feet
            foot = [(x0 + side * (r + 0.04), y0 + 0.02 + 0.03 * k), (x0 + side * (r + 0.17), y0 - 0.05 + 0.075 * k)]
            if au["AU6"] > 0.05:
                pen.line(foot, mix(self.who.skin, self._fold, min(1, 1.1 * au["AU6"]) * self.who.wrinkles), 0.018)

    def _brow(self, pen: Pen, au: Au, side: int) -> None:
        who = self.who
        frown, pull = au["AU4"], 0.5 * au["AU9"]
        inner = -0.47 - 0.16 * au["AU1"] + 0.11 * frown + 0.06 * pull
        middle = -0.54 - 0.09 * au["AU1"] - 0.1 * au["AU2"] + 0.1 * frown + 0.02 * pull
        outer = -0.46 - 0.19 * au["AU2"] + 0.03 * frown
        near = 0.2 - 0.06 * frown
        line = curve([(near, inner), (0.42, middle), (0.62, middle + 0.03), (0.74, outer)])
        thick = np.linspace(0.05, 0.018, len(line)) * who.brow_thick
        body = np.vstack(
            [line - np.column_stack([0 * thick, thick]), (line + np.column_stack([0 * thick, 0.6 * thick]))[::-1]]
        )
        pen.fill(mirrored(body, side), self._brow_ink)

    def _forehead(self, pen: Pen, au: Au) -> None:
        who = self.who
        for unit, y in (("AU1", -0.74), ("AU1", -0.86), ("AU2", -0.8), ("AU2", -0.92)):
            strength = au[unit] * who.wrinkles
            if strength < 0.05:
                continue
            colour = mix(who.skin, self._fold, 0.85 * strength)
            if unit == "AU1":
                pen.line(curve([(-0.3, y), (0, y - 0.03), (0.3, y)]), colour, 0.02)
            else:
                for side in (-1, 1):
                    pen.line(mirrored(curve([(0.3, y + 0.02), (0.5, y - 0.03), (0.7, y + 0.04)]), side), colour, 0.02)
        if au["AU4"] > 0.05:
            for side in (-1, 1):
                pen.line(
                    mirrored(curve([(0.045, -0.6), (0.06, -0.5), (0.05, -0.4)]), side),
                    mix(who.skin, self._fold, au["AU4"]),
                    0.025,
                )
            pen.shade(ellipse((0, -0.5), (0.1, 0.12)), self._shadow, 0.5 * au["AU4"], 0.04)

    def _nose(self, pen: Pen, au: Au) -> None:
        who = self.who
        tip = 0.22 * who.nose_length - 0.05 * au["AU9"]
        wing = 0.15 + 0.025 * au["AU9"] + 0.01 * au["AU10"]
        base = tip + 0.06 - 0.05 * au["AU9"] - 0.02 * au["AU10"]
        pen.shade([(-0.07, -0.4), (-0.13, tip), (-0.04, tip), (-0.03, -0.4)], self._shadow, 0.45, 0.04)
        pen.shade(ellipse((0.01, -0.1), (0.07, 0.34)), mix(who.skin, (255, 250, 242), 0.7), 0.55, 0.05)
        for side in (-1, 1):
            pen.line(
                mirrored(curve([(wing, tip - 0.05), (wing + 0.025, tip + 0.03), (wing - 0.03, base + 0.01)]), side),
                self._fold,
                0.022,
                0.08,
            )
            pen.blob((side * 0.07, base), (0.042, 0.022), darker(who.skin, 0.75), 0.1)
        pen.line(curve([(-0.07, base + 0.01), (0, base + 0.035), (0.07, base + 0.01)]), self._fold, 0.016, 0.1)
        if au["AU9"] > 0.05:  # wrinkles across the root and along the sides of the nose
            colour = mix(who.skin, darker(who.skin, 0.62), min(1.0, 1.15 * au["AU9"]))
            for k in range(3):
                y = -0.33 + 0.085 * k
                pen.line(curve([(-0.1, y + 0.03), (0, y - 0.02), (0.1, y + 0.03)]), colour, 0.026, 0.05)
            for side in (-1, 1):
                pen.line(mirrored(curve([(0.1, -0.12), (0.17, 0.0), (0.2, 0.1)]), side), colour, 0.026, 0.03)
                pen.line(mirrored(curve([(0.14, -0.16), (0.22, -0.05), (0.26, 0.03)]), side), colour, 0.02, 0.0)

    def _cheeks(self, pen: Pen, au: Au) -> None:
        """Nasolabial furrow and raised cheeks."""
        who = self.who
        depth = max(0.18, 0.75 * au["AU12"], 0.6 * au["AU6"], au["AU10"], 0.4 * au["AU9"])
        out = 0.1 * au["AU12"] - 0.04 * au["AU18"]
        lift = 0.05 * au["AU10"]
        for side in (-1, 1):
            fold = curve([(0.18, 0.14 - lift), (0.3 + 0.5 * out, 0.28 - lift), (0.41 + out, 0.5 - 0.05 * au["AU12"])])
            pen.line(mirrored(fold, side), mix(who.skin, self._fold, depth), 0.02 + 0.02 * au["AU10"])
            ball = ellipse((side * 0.5, 0.2 - 0.09 * au["AU6"]), (0.2, 0.12))
            pen.shade(ball, mix(who.skin, (255, 240, 225), 0.7), 0.7 * max(au["AU6"], 0.4 * au["AU12"]), 0.06)

    def _hair(self, pen: Pen) -> None:
        who, w, h = self.who, self.who.width, self.who.height
        fringe = {0: -0.98, 1: -0.86, 2: -0.92, 3: -0.8}[who.hair_kind]
        part = 0.25 if who.hair_kind in (1, 3) else -0.2
        edge = curve(
            [
                (0.99 * w, -0.15),
                (0.86 * w, -0.55),
                (0.62, fringe + 0.04),
                (part, fringe),
                (-0.6, fringe + 0.08),
                (-0.86 * w, -0.55),
                (-0.99 * w, -0.15),
            ]
        )
        top = curve(
            [
                (-1.08, -0.2),
                (-1.06, -0.75),
                (-0.7, -h - 0.1),
                (0, -h - 0.22),
                (0.7, -h - 0.1),
                (1.06, -0.75),
                (1.08, -0.2),
            ]
        )
        pen.fill(np.vstack([edge, top]), who.hair, -0.05)
        sheen = curve([(-0.7, -h * 0.86), (0, -h * 1.02), (0.7, -h * 0.86), (0, -h * 0.92)])
        pen.shade(sheen, mix(who.hair, (255, 240, 220), 0.5), 0.5, 0.06)

    def _glasses(self, pen: Pen) -> None:
        who = self.who
        for side in (-1, 1):
            ring = ellipse((side * (who.eye_gap + 0.02), -0.18), (0.27, 0.2))
            pen.line(np.vstack([ring, ring[:1]]), (46, 42, 44), 0.025, 0.05)
            pen.line([(side * 0.71, -0.2), (side * 0.98, -0.22)], (46, 42, 44), 0.03, 0.02)
        pen.line(curve([(-0.16, -0.2), (0, -0.23), (0.16, -0.2)]), (46, 42, 44), 0.025, 0.08)
