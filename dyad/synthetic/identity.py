"""Who the speaker is: face shape, colours, hair, glasses, light and background, drawn at random."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
"""RGB, 0…255."""

SKINS: tuple[Colour, ...] = (
    (246, 214, 188),
    (236, 196, 166),
    (224, 178, 142),
    (205, 155, 116),
    (178, 127, 90),
    (150, 103, 72),
    (128, 86, 60),
)
HAIRS: tuple[Colour, ...] = ((38, 30, 26), (74, 48, 34), (118, 78, 48), (176, 132, 84), (150, 150, 152), (110, 52, 30))
CLOTHES: tuple[Colour, ...] = ((52, 74, 112), (120, 52, 58), (64, 96, 80), (90, 84, 120), (150, 120, 70), (60, 62, 70))


@dataclass(frozen=True)
class Identity:
    """One speaker's looks; lengths are in half face widths."""

    skin: Colour
    hair: Colour
    cloth: Colour
    iris: Colour
    lips: Colour
    width: float
    height: float
    eye_gap: float
    eye_size: float
    brow_thick: float
    mouth_width: float
    nose_length: float
    hair_kind: int
    beard: float
    glasses: bool
    wrinkles: float
    zoom: float
    place: tuple[float, float]
    grain: float
    light: NDArray[np.float32]
    background: NDArray[np.uint8]

    @classmethod
    def draw(cls, rng: np.random.Generator, size_px: int) -> "Identity":
        """A random identity for pictures of `size_px`."""
        skin = np.array(SKINS[int(rng.integers(len(SKINS)))], float) * rng.uniform(0.94, 1.05)
        lips = 0.72 * skin + 0.28 * np.array((200, 40, 60))
        bearded = bool(rng.random() < 0.22)
        return cls(
            skin=_colour(skin),
            hair=_hair(rng, skin),
            cloth=CLOTHES[int(rng.integers(len(CLOTHES)))],
            iris=((92, 62, 40), (70, 96, 120), (80, 104, 70))[int(rng.integers(3))],
            lips=_colour(lips * rng.uniform(0.9, 1.05)),
            width=float(rng.uniform(0.94, 1.06)),
            height=float(rng.uniform(1.22, 1.36)),
            eye_gap=float(rng.uniform(0.40, 0.46)),
            eye_size=float(rng.uniform(0.92, 1.12)),
            brow_thick=float(rng.uniform(0.8, 1.3)),
            mouth_width=float(rng.uniform(0.33, 0.4)),
            nose_length=float(rng.uniform(0.92, 1.1)),
            hair_kind=int(rng.integers(4)),
            beard=float(rng.uniform(0.25, 0.5)) if bearded else 0.0,
            glasses=bool(rng.random() < 0.25),
            wrinkles=float(rng.uniform(0.5, 1.0)),
            zoom=float(rng.uniform(0.29, 0.35)),
            place=(float(rng.uniform(0.46, 0.54)), float(rng.uniform(0.47, 0.52))),
            grain=float(rng.uniform(0.0, 2.0)),
            light=_light(rng, size_px),
            background=_background(rng, size_px),
        )


def _hair(rng: np.random.Generator, skin: NDArray[np.float64]) -> Colour:
    """A hair colour clearly darker than the skin: light hair on dark skin hides the brows from a face detector."""
    darker = [h for h in HAIRS if sum(h) < 0.72 * skin.sum()]
    return darker[int(rng.integers(len(darker)))]


def _colour(values: NDArray[np.float64]) -> Colour:
    r, g, b = (float(v) for v in np.clip(values, 0, 255))
    return r, g, b


def _light(rng: np.random.Generator, size_px: int) -> NDArray[np.float32]:
    """Gain of a soft lamp on one side, [size, size, 1] around 1."""
    y, x = np.mgrid[0:size_px, 0:size_px] / size_px - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    gain = rng.uniform(0.92, 1.06) + rng.uniform(0.05, 0.3) * (np.cos(angle) * x + 0.6 * np.sin(angle) * y)
    return gain.astype(np.float32)[:, :, None]


def _background(rng: np.random.Generator, size_px: int) -> NDArray[np.uint8]:
    """A blurred room: a wall, a few soft shapes."""
    base = rng.uniform(90, 215) * (1 + 0.08 * rng.standard_normal(3))
    wall = np.ones((size_px, size_px, 3), np.float32) * base.astype(np.float32)
    for _ in range(int(rng.integers(2, 6))):
        corner = rng.integers(0, size_px, 2)
        far = corner + rng.integers(size_px // 8, size_px // 2, 2)
        shade = [float(v) for v in np.clip(base * rng.uniform(0.6, 1.25) + rng.normal(0, 14, 3), 20, 245)]
        cv2.rectangle(wall, [int(v) for v in corner], [int(v) for v in far], shade, -1)
    return np.clip(cv2.GaussianBlur(wall, (0, 0), size_px / 28), 0, 255).astype(np.uint8)
