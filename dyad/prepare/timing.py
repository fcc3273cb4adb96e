"""When the rows of an action-unit table are, and what they say on the 30 Hz grid.

Times come from the table's time stamps; without them from its frame numbers and the listener video's rate. Tools
round time stamps to milliseconds: where frame numbers show an even rate, the exact times are restored.
Shapes: N rows, U units, T frames at 30 Hz.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS

Floats = NDArray[np.float64]

_STAMPS, _FRAMES = ("timestamp", "time_s", "time"), ("frame", "frame_idx", "listener_frame_idx")
TIME_COLUMNS = frozenset((*_STAMPS, *_FRAMES, "fps"))
"""Lower-case names of the columns that tell time."""
MAX_GAP_S = 0.2
"""Between rows further apart than this nothing is interpolated: the frames are masked."""
_RATES_HZ = (15.0, 24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60000 / 1001, 60.0)
_ROUNDING_S = 2e-3


def row_times(
    path: Path, columns: Mapping[str, Floats], n_rows: int, *, dialect: str, video_fps: float | None
) -> tuple[Floats, float, float]:
    """Times [N] of the rows in seconds, the usual time between rows, and the frames per second of their video.

    Raises ValueError where the table and its video give no time, or time does not increase.
    """
    stamps = next((columns[n] for n in _STAMPS if n in columns), None)
    frames = next((columns[n] for n in _FRAMES if n in columns), None)
    counted = frames is not None
    if frames is None:
        frames = np.arange(n_rows, dtype=np.float64)
    elif dialect == "openface":
        frames = frames - min(frames[0], 1.0)  # counts from one; some exports from zero
    _require_increasing(path, "frame", frames)
    if stamps is not None and (n_rows == 1 or stamps.any()):  # all zero: the tool was given single pictures
        _require_increasing(path, "timestamp", stamps)
        times_s, rate_hz = _even(stamps, frames)
        if not counted and n_rows > 1:  # rows may be missing: the rate is that of the even stretches
            steps_s = np.diff(times_s)
            rate_hz = float(1 / steps_s[steps_s < 1.5 * np.median(steps_s)].mean())
    else:
        rate_hz = float(columns["fps"][0]) if "fps" in columns else FPS if dialect == "rapport" else video_fps
        if not rate_hz:
            raise ValueError(
                f"{path}: no column 'timestamp', and no listener video to time its frames by; "
                "add the column in seconds, or the video beside the table"
            )
        times_s = frames / rate_hz
    row_s = float(np.median(np.diff(times_s))) if n_rows > 1 else 1.0 / rate_hz
    return times_s, row_s, float(rate_hz)


def _require_increasing(path: Path, column: str, values: Floats) -> None:
    back = np.flatnonzero(np.diff(values) <= 0)
    if len(back):
        r = int(back[0]) + 1
        raise ValueError(
            f"{path}: column {column!r}, row {r + 1}: {values[r]:g} follows {values[r - 1]:g}; "
            "time must increase: give one table per clip and face"
        )


def _even(stamps: Floats, frames: Floats) -> tuple[Floats, float]:
    """Exact times where the rounded `stamps` fit an even rate over `frames`, else the stamps; and the rate."""
    if len(stamps) < 2:
        return stamps, float(FPS)
    measured_hz = float((frames[-1] - frames[0]) / (stamps[-1] - stamps[0]))
    rate_hz = min(_RATES_HZ, key=lambda r: abs(r - measured_hz))
    exact = stamps[0] + (frames - frames[0]) / rate_hz
    if np.abs(exact - stamps).max() <= _ROUNDING_S:
        return exact, rate_hz
    return stamps, measured_hz


def on_grid(
    times_s: Floats, prob: Floats, act: Floats, n_frames: int, *, row_s: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probability and activation [T, U] on the 30 Hz grid.

    Probabilities are interpolated linearly at t/30 s. An activation is that of the latest row by (t + 0.5)/30 s, the
    rule by which pictures meet the grid. Frames beyond the table, in a gap, or beside a masked row are NaN.
    """
    max_gap_s = max(MAX_GAP_S, 2.5 * row_s)
    grid_s = np.arange(n_frames) / FPS
    right = np.clip(np.searchsorted(times_s, grid_s - 1e-9), 0, len(times_s) - 1)
    left = np.where(np.abs(times_s[right] - grid_s) < 1e-6, right, np.maximum(right - 1, 0))
    span_s = times_s[right] - times_s[left]
    weight = np.where(span_s > 0, np.clip((grid_s - times_s[left]) / np.where(span_s > 0, span_s, 1), 0, 1), 0.0)
    near, far = prob[left], prob[right]
    share = weight[:, None]
    mixed = np.where(share == 0, near, np.where(share == 1, far, near + share * (far - near)))
    latest = np.searchsorted(times_s, grid_s + 0.5 / FPS + 1e-9, side="right") - 1
    held = act[np.maximum(latest, 0)]
    ends_s = times_s[-1] + max(row_s, 1.0 / FPS)
    outside = (grid_s < times_s[0] - 1.0 / FPS) | (grid_s >= ends_s - _ROUNDING_S / 2) | (span_s > max_gap_s)
    mixed[outside], held[outside | (latest < 0)] = np.nan, np.nan
    return mixed.astype(np.float32), held.astype(np.float32)
