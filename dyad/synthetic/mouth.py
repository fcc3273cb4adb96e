"""The lower face: lips, teeth, the marks that their muscles leave, and the chin.

Shapes: lengths in half face widths; action units as intensities in [0, 1].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyad.synthetic.identity import Identity
from dyad.synthetic.pen import Pen, curve, darker, ellipse, mirrored, mix

Au = dict[str, float]
Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Lips:
    """Where the lips are: half width, heights of the corners and of the inner edges, thickness of both lips."""

    half: float
    corner: float
    middle: float
    gap: float
    raised: float
    up: float
    low: float
    bow: float
    full: float


def lips_of(who: Identity, au: Au) -> Lips:
    """The lips' shape for the units shown."""
    stretch, pucker, tight = au["AU20"], au["AU18"], au["AU23"]
    half = who.mouth_width + 0.11 * au["AU12"] + 0.13 * stretch - 0.17 * pucker - 0.03 * tight + 0.03 * au["AU14"]
    y = 0.56 + 0.05 * au["AU26"] - 0.02 * au["AU17"]
    gap = 0.17 * au["AU25"] + 0.05 * au["AU26"] + 0.08 * au["AU25"] * au["AU26"]
    raised = 0.11 * au["AU10"] + 0.02 * au["AU9"]
    return Lips(
        half=half,
        corner=y - 0.13 * au["AU12"] + 0.13 * au["AU15"] - 0.02 * au["AU14"] + 0.03 * stretch,
        middle=y,
        gap=gap,
        raised=raised,
        up=y - raised - 0.3 * gap,
        low=y + 0.7 * gap - 0.07 * au["AU17"],
        bow=max(0.065 + 0.06 * pucker - 0.045 * tight - 0.02 * au["AU12"] - 0.03 * stretch, 0.012),
        full=max(0.085 + 0.07 * pucker - 0.055 * tight - 0.02 * au["AU12"] - 0.03 * stretch, 0.016),
    )


def mouth(pen: Pen, who: Identity, au: Au) -> None:
    """Opening, teeth, both lips and what surrounds them."""
    at = lips_of(who, au)
    half, corner, up, low, full = at.half, at.corner, at.up, at.low, at.full
    flank, sag = 0.5 * (up + at.middle), 0.55 * low + 0.45 * corner + 0.25 * at.gap
    inner_top = curve([(-half, corner), (-0.5 * half, flank), (0, up), (0.5 * half, flank), (half, corner)])
    inner_low = curve([(half, corner), (0.5 * half, sag), (0, low + 0.02), (-0.5 * half, sag), (-half, corner)])
    if at.gap > 0.012 or at.raised > 0.02:
        pen.fill(np.vstack([inner_top, inner_low]), (58, 18, 22))
        edge = min(up + 0.055 + 0.5 * at.raised, low)
        pen.fill(
            [(-0.62 * half, up + 0.01), (0.62 * half, up + 0.01), (0.5 * half, edge), (-0.5 * half, edge)],
            (238, 234, 224),
        )
    lips = mix(who.lips, who.skin, 0.55 * au["AU23"])
    pen.fill(np.vstack([inner_top, _upper_edge(at)]), darker(lips, 0.12))
    side_y, outer = low + 0.75 * full, (0, low + full + 0.02)
    lower = [(-half, corner), (-0.45 * half, side_y), outer, (0.45 * half, side_y), (half, corner)]
    pen.fill(np.vstack([inner_low, curve(lower)]), lips)
    glow = ellipse((0, low + 0.5 * full), (0.5 * half, 0.25 * full))
    pen.shade(glow, mix(lips, (255, 235, 230), 0.7), 0.5 + 0.4 * au["AU18"], 0.02)
    pen.line(inner_top, darker(who.lips, 0.65), 0.016)
    pen.shade(ellipse((0, low + full + 0.07), (0.2, 0.03)), darker(who.skin, 0.34), 0.45, 0.03)
    for side in (-1, 1):
        _corner_marks(pen, who, au, at, side)
    _lip_marks(pen, who, au, at)


def _upper_edge(at: Lips) -> Curve:
    """The upper lip's outer edge: a cupid's bow, a plain arch when puckered."""
    half, corner, up, bow = at.half, at.corner, at.up, at.bow
    if half <= 0.26:
        return curve([(half, corner), (0, up - 1.2 * bow), (-half, corner)])
    right, peak = (0.45 * half, up - bow), (0.12, up - bow * 1.05)
    left = [(-peak[0], peak[1]), (-right[0], right[1]), (-half, corner)]
    return curve([(half, corner), right, peak, (0, up - 0.8 * bow), *left])


def _corner_marks(pen: Pen, who: Identity, au: Au, at: Lips, side: int) -> None:
    """Dimple, lowered corner and stretch folds beside one corner of the mouth."""
    half, corner = at.half, at.corner
    fold, x = darker(who.skin, 0.5), at.half + 0.045
    if au["AU14"] > 0.05:
        ink = mix(who.skin, darker(who.skin, 0.72), min(1, 1.1 * au["AU14"]))
        pen.line(mirrored(curve([(x, corner - 0.08), (x + 0.035, corner), (x, corner + 0.08)]), side), ink, 0.035)
        pen.shade(ellipse((side * (x + 0.05), corner), (0.06, 0.07)), fold, 0.7 * au["AU14"], 0.03)
    if au["AU15"] > 0.05:
        line = mirrored([(half, corner), (half + 0.03, corner + 0.09)], side)
        pen.line(line, mix(who.skin, fold, au["AU15"]), 0.028)
    if au["AU20"] > 0.05:
        ink = mix(who.skin, fold, au["AU20"])
        for k in (0.06, 0.13):
            line = curve([(half + k, corner - 0.12), (half + k + 0.03, corner), (half + k, corner + 0.14)])
            pen.line(mirrored(line, side), ink, 0.02)


def _lip_marks(pen: Pen, who: Identity, au: Au, at: Lips) -> None:
    """A pucker's small upright lines above the lips; pressed skin and taut lines around thin ones."""
    half, corner, fold = at.half, at.corner, darker(who.skin, 0.5)
    top, bottom = at.up - at.bow, at.low + at.full
    if au["AU18"] > 0.05:
        for x in (-0.08, 0.0, 0.08):
            pen.line([(x, top - 0.02), (0.7 * x, top - 0.075)], mix(who.skin, fold, au["AU18"]), 0.016)
    if au["AU23"] > 0.05:
        ink = mix(who.skin, (255, 244, 236), 0.5)
        pen.shade(ellipse((0, top - 0.035), (half, 0.022)), ink, 0.9 * au["AU23"], 0.015)
        pen.shade(ellipse((0, bottom + 0.03), (half, 0.022)), ink, 0.9 * au["AU23"], 0.015)
        ink = mix(who.skin, fold, au["AU23"])
        for side in (-1, 1):
            pen.line(mirrored([(half - 0.03, corner - 0.035), (half + 0.05, corner - 0.05)], side), ink, 0.02)
            pen.line(mirrored([(half - 0.03, corner + 0.04), (half + 0.05, corner + 0.06)], side), ink, 0.02)


def chin(pen: Pen, who: Identity, au: Au) -> None:
    """The chin's light, and its raised, dimpled boss."""
    y = who.height - 0.27 + 0.15 * au["AU26"] - 0.04 * au["AU17"]
    pen.shade(ellipse((0, y), (0.17, 0.1)), mix(who.skin, (255, 248, 240), 0.6), 0.35, 0.05)
    if au["AU17"] > 0.05:
        ink = mix(who.skin, darker(who.skin, 0.6), au["AU17"])
        boss = [(-0.2, y - 0.03), (-0.1, y - 0.13), (0, y - 0.155), (0.1, y - 0.13), (0.2, y - 0.03)]
        pen.line(curve(boss), ink, 0.035)
        for x, dy in ((-0.08, 0.02), (0.0, -0.03), (0.08, 0.02), (-0.03, 0.06), (0.04, 0.07)):
            pen.blob((x, y + dy), (0.018, 0.014), ink)
