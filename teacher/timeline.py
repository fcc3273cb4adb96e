"""Which moment a media token stands for, exactly; never through rounded position ids.

Video token n of a window lies in temporal grid g = n // (tokens per grid); with two frames to a grid at F frames per
second it covers [2g/F, (2g+2)/F) s. Audio token k covers [0.04 k, 0.04 (k+1)) s. Both are read out at the centres of
the 30 Hz frames, (t + 0.5)/30, by linear interpolation between slot centres, ends held.
"""

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS

AUDIO_SLOT_S = 0.04
"""Mel at 100 Hz, convolution stride 2, pooling 2: 25 audio tokens per second."""
FRAMES_PER_GRID = 2
MEL_HOP_SAMPLES = 160
"""Of the audio tower's log-mel, at 16 kHz."""


def video_centres_s(grids: int, video_fps: float) -> NDArray[np.float64]:
    """Centre of each temporal grid, seconds from the window's start."""
    return (np.arange(grids, dtype=np.float64) + 0.5) * FRAMES_PER_GRID / video_fps


def audio_centres_s(tokens: int) -> NDArray[np.float64]:
    """Centre of each audio token, seconds from the window's start."""
    return (np.arange(tokens, dtype=np.float64) + 0.5) * AUDIO_SLOT_S


def frame_centres_s(frames: int) -> NDArray[np.float64]:
    """Centre of each 30 Hz frame, seconds from the window's start."""
    return (np.arange(frames) + 0.5) / FPS


def interpolation(slots_s: NDArray[np.float64], wanted_s: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights [wanted, slots] of linear interpolation; rows sum to 1, ends are held."""
    place = np.interp(wanted_s, slots_s, np.arange(len(slots_s)))
    low = np.minimum(place.astype(int), len(slots_s) - 1)
    high = np.minimum(low + 1, len(slots_s) - 1)
    weights = np.zeros((len(wanted_s), len(slots_s)), np.float32)
    rows = np.arange(len(wanted_s))
    np.add.at(weights, (rows, low), 1 - (place - low))
    np.add.at(weights, (rows, high), place - low)
    return weights
