"""Is somebody speaking? From energy and spectrum of the 50 ms window, without weights.

Causal: the noise floor follows the quietest sound at once and rises slowly; a window counts as voice when it stands
above the floor between 100 and 4000 Hz and its spectrum has peaks, as voices do and fans do not.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FRAME_S, SAMPLE_RATE_HZ

LOW_HZ, HIGH_HZ = 100.0, 4000.0
START_DB, LEAST_DB = -50.0, -65.0
"""Noise floor before anything is heard, and the lowest that it can fall to: dB of full scale."""
RISE_DB_PER_S, FALL = 2.0, 0.2
ABOVE_DB, SLOPE_DB = 9.0, 3.0
"""So far above the floor a window is voice with probability 1/2; so fast that grows."""
FLAT = 0.45
"""Spectral flatness (geometric over arithmetic mean) of a window that is half noise."""
RELEASE_S = 0.15
"""How slowly the activity falls: stops inside words are still speech."""


class VoiceActivity:
    """Voice activity of one stream of audio windows, and its loudness."""

    def __init__(self) -> None:
        self._floor_db = START_DB
        self._active = 0.0
        self.level_db = LEAST_DB
        """Loudness of the last window between 100 and 4000 Hz, dB of full scale."""

    def step(self, window: NDArray[np.float32]) -> float:
        """Activity in [0, 1] of the next window [S], which must be finite."""
        taper, heard = _spectrum(len(window))
        band = np.abs(np.fft.rfft(window * taper)[heard]) ** 2
        energy = float(band.sum()) / (0.1875 * len(window) ** 2)  # a full-scale sine is 0 dB
        self.level_db = max(10 * float(np.log10(energy + 1e-12)), LEAST_DB)
        fall = FALL * (self.level_db - self._floor_db)
        self._floor_db += max(fall, LEAST_DB - self._floor_db) if fall < 0 else min(fall, RISE_DB_PER_S * FRAME_S)
        above = 1 / (1 + np.exp(-(self.level_db - self._floor_db - ABOVE_DB) / SLOPE_DB))
        peaked = 1 / (1 + np.exp((_flatness(band) - FLAT) / 0.06))
        self._active = max(float(above * peaked), self._active * (1 - FRAME_S / (RELEASE_S + FRAME_S)))
        return self._active


@functools.cache
def _spectrum(samples: int) -> tuple[NDArray[np.float64], slice]:
    """Hann window [samples], and which bins of the spectrum lie in the band."""
    hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ)
    inside = np.flatnonzero((hz >= LOW_HZ) & (hz <= HIGH_HZ))
    return np.hanning(samples).astype(np.float64), slice(int(inside[0]), int(inside[-1]) + 1)


def _flatness(band: NDArray[np.float64]) -> float:
    """1 for white noise on average 0.56, near 0 for a tone; digital silence counts as noise."""
    mean = float(band.mean())
    return float(np.exp(np.log(band + 1e-9 * mean + 1e-20).mean()) / mean) if mean > 1e-12 else 1.0
