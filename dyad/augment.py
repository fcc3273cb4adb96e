"""Make one clip look and sound like many; whatever moves time moves the labels with it.

Clip-consistent: one draw for all frames of a clip, so that no motion is invented. Shapes: frames [T, h, w, 3] uint8,
sound [S] float32.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Sound = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Strengths; 0 turns one off."""

    flip: float = 0.5
    """Chance of a mirrored clip."""
    shift_px: int = 4
    """Largest shift of the crop, pixels."""
    brightness: float = 0.25
    """Largest relative change of brightness and contrast."""
    colour: float = 0.1
    """Largest relative change of each colour channel."""
    gain_db: float = 8.0
    """Largest change of loudness."""
    noise_db: float = 35.0
    """Least signal-to-noise ratio of added noise; half the clips get some."""
    stretch: float = 0.1
    """Largest change of tempo; pictures, sound and labels move together."""
    drop_sight: float = 0.08
    """Chance that a clip has no picture."""
    drop_sound: float = 0.08
    """Chance that a clip has no sound."""


OFF = AugmentConfig(
    flip=0, shift_px=0, brightness=0, colour=0, gain_db=0, noise_db=0, stretch=0, drop_sight=0, drop_sound=0
)
"""No augmentation: for validation and tests."""


def source_times(start: int, frames: int, ahead: int, rate: float) -> NDArray[np.int64]:
    """Source frame of every clip frame and of `ahead` frames past its end, at `rate` source frames per clip frame."""
    return start + np.round(np.arange(frames + ahead) * rate).astype(np.int64)


def stretch_sound(sound: Sound, first_sample: float, count: int, rate: float) -> Sound:
    """`count` samples from `first_sample` on, read at `rate`; zeros outside the sound."""
    positions = first_sample + np.arange(count) * rate
    if rate == 1.0:
        inside = (positions >= 0) & (positions < len(sound))
        out = np.zeros(count, np.float32)
        out[inside] = sound[positions[inside].astype(np.int64)]
        return out
    low, high = max(int(positions[0]), 0), min(int(positions[-1]) + 2, len(sound))
    if low >= high:
        return np.zeros(count, np.float32)
    return np.interp(positions, np.arange(low, high), sound[low:high], left=0, right=0).astype(np.float32)


def move_picture(frames: Frames, rng: np.random.Generator, config: AugmentConfig) -> Frames:
    """Mirror and shift a clip, edges repeated."""
    if rng.random() < config.flip:
        frames = frames[:, :, ::-1]
    dy, dx = rng.integers(-config.shift_px, config.shift_px + 1, 2) if config.shift_px else (0, 0)
    rows = np.clip(np.arange(frames.shape[1]) + dy, 0, frames.shape[1] - 1)
    columns = np.clip(np.arange(frames.shape[2]) + dx, 0, frames.shape[2] - 1)
    return frames[:, rows][:, :, columns]


def light(frames: Frames, rng: np.random.Generator, config: AugmentConfig) -> Frames:
    """Change brightness, contrast and colour of a clip through a look-up table per channel."""
    gain = 1 + rng.uniform(-config.brightness, config.brightness)
    offset = 128 * rng.uniform(-config.brightness, config.brightness)
    out = np.empty_like(frames)
    for channel in range(3):
        tint = gain * (1 + rng.uniform(-config.colour, config.colour))
        table = np.clip((np.arange(256) - 128) * tint + 128 + offset, 0, 255).astype(np.uint8)
        out[..., channel] = table[frames[..., channel]]
    return out


def loudness(sound: Sound, rng: np.random.Generator, config: AugmentConfig) -> Sound:
    """Change the gain of a clip's sound, and add faint noise to half the clips."""
    sound = np.multiply(sound, 10 ** (rng.uniform(-config.gain_db, config.gain_db) / 20), dtype=np.float32)
    if config.noise_db and rng.random() < 0.5:
        level = np.sqrt(np.mean(sound**2)) * 10 ** (-rng.uniform(config.noise_db, config.noise_db + 25) / 20)
        sound += rng.standard_normal(len(sound), np.float32) * np.float32(level)
    return np.clip(sound, -1, 1).astype(np.float32)


def drop_senses(present: NDArray[np.float32], rng: np.random.Generator, config: AugmentConfig) -> NDArray[np.float32]:
    """Blind or deafen a clip, never both: the student learns to do without either. `present` [T, 2]."""
    present, chance = present.copy(), rng.random()
    if chance < config.drop_sight:
        present[:, 0] = 0
    elif chance < config.drop_sight + config.drop_sound:
        present[:, 1] = 0
    return present
