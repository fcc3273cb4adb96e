"""When the speaker speaks: rises of loudness, and the starts and ends of speech, from the sound alone.

A frame is voiced when it is within 25 dB of the session's loud frames and clearly above its quiet ones; gaps shorter
than 0.2 s belong to the speech around them. Rough, but the same for every session, and it needs no model.
Shapes: T frames at 30 Hz, S samples at 16 kHz.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS, audio_end, samples_until
from dyad.stats.lags import rises

Array = NDArray[np.float64]
FLOOR_DB, RANGE_DB, ABOVE_QUIET_DB = -70.0, 25.0, 6.0
GAP_FRAMES = round(0.2 * FPS)
CUES = ("voice louder", "voice starts", "voice ends")


def level_db(sound: NDArray[np.float32], n_frames: int) -> Array:
    """Loudness [T] of the samples of each frame, dB below full scale, not below the floor."""
    power = np.concatenate([[0.0], np.cumsum(sound.astype(np.float64) ** 2)])
    first = np.minimum([samples_until(t) for t in range(n_frames)], len(sound))
    last = np.minimum([audio_end(t) for t in range(n_frames)], len(sound))
    mean = (power[last] - power[first]) / np.maximum(last - first, 1)
    return 10 * np.log10(np.maximum(mean, 10 ** (FLOOR_DB / 10)))


def voiced(level: Array) -> NDArray[np.bool_]:
    """Whether there is speech, [T]."""
    loud, quiet = np.quantile(level, (0.95, 0.1))
    on = (level > max(loud - RANGE_DB, FLOOR_DB + 1)) & (level > min(quiet + ABOVE_QUIET_DB, loud - 3))
    edges = np.flatnonzero(np.diff(on.astype(np.int8)))
    for left, right in pairwise(edges):
        if not on[left + 1] and right - left < GAP_FRAMES:
            on[left + 1 : right + 1] = True
    return on


def cues(sound: NDArray[np.float32], n_frames: int) -> Array:
    """Rises of loudness, starts of speech and ends of speech, [T, 3]; NaN throughout where the sound is silence."""
    if not len(sound) or float(np.abs(sound).max()) < 1e-4:
        return np.full((n_frames, len(CUES)), np.nan)
    level = level_db(sound, n_frames)
    change = np.diff(voiced(level).astype(np.float64), prepend=0)
    change[0] = 0
    return np.stack([rises(level[:, None])[:, 0], np.maximum(change, 0), np.maximum(-change, 0)], axis=1)
