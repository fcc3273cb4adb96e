"""Clips for training: decoded sessions, their labels at every horizon, and the teacher's soft ones beside them.

Shapes: B clips, T frames, S = 800 samples, H horizons, A units. Targets of row t, column h belong to frame t + h; what
is not annotated, or lies past the end, is NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dyad import augment, clock
from dyad.augment import AugmentConfig
from dyad.layouts.processed import speaker_units
from dyad.session import Session
from dyad.soft_labels import SoftLabels, SoftLabelStore
from student import front_cache
from student.front_cache import FrontSession
from student.spec import StudentSpec

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TrainingSession:
    """One session ready for cutting; label arrays are [T, A] or None."""

    id: str
    front: FrontSession
    prob: Floats
    act: Floats
    soft: SoftLabels | None
    speaker_au: Floats | None

    @property
    def n_frames(self) -> int:
        """Frames that both pictures and labels have."""
        return min(len(self.front.frames), len(self.prob))


@dataclass(frozen=True)
class Batch:
    """What one training step needs; soft fields are NaN where the teacher was silent."""

    frame_u8: Tensor
    audio: Tensor
    present: Tensor
    prob: Tensor
    act: Tensor
    soft_prob: Tensor
    soft_act: Tensor
    uncertainty: Tensor
    speaker_au: Tensor
    seen: Tensor
    """[B, T, D] what frozen eyes made of the pictures, which are then empty; else [B, T, 0]."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


def open_sessions(
    root: Path,
    sessions: Sequence[Session],
    spec: StudentSpec,
    labels: SoftLabelStore | None,
    *,
    annotated: bool = True,
) -> list[TrainingSession]:
    """Attach decoded media, soft labels and speaker units to sessions; soft labels of another length are refused.

    With `annotated` False the listener's own labels are left out: what is learned then is the teacher's alone. Soft
    labels that the teacher's quality gate dropped are left out.
    """
    ready, dropped = [], {} if labels is None else labels.dropped()
    for s in sessions:
        wanted = labels is not None and s.id in labels and s.id not in dropped
        soft = labels.read(s.id) if labels is not None and wanted else None
        if soft is not None and len(soft.prob) != s.n_frames:
            raise ValueError(
                f"labels/{s.id}: {len(soft.prob)} frames, but the session has {s.n_frames} at 30 Hz; "
                f"relabel it with: python -m teacher.label --only {s.id}"
            )
        front = front_cache.load(root, s.id, spec)
        prob, act = (s.prob, s.act) if annotated else (np.full_like(s.prob, np.nan), np.full_like(s.act, np.nan))
        ready.append(TrainingSession(s.id, front, prob, act, soft, speaker_units(root, s.id, spec.au_names)))
    return ready


def known_mean(tables: Sequence[Floats]) -> Floats:
    """Mean per unit [A] of what is known in tables [T, A]; 0 for a unit that is known nowhere."""
    stacked = np.concatenate(tables)
    known = (~np.isnan(stacked)).sum(axis=0)
    return (np.nansum(stacked, axis=0) / np.maximum(known, 1)).astype(np.float32)


def audio_windows(sound: Floats, frames: int, spec: StudentSpec, first: int = 0) -> Floats:
    """Windows [frames, 800] that end with frames first, first + 1, …; the same cut as the front end's."""
    width = spec.audio_window_samples
    ends = np.array([clock.audio_end(first + t) for t in range(frames)])
    padded = np.zeros(max(int(ends[-1]), len(sound)) + width, np.float32)
    padded[width : width + len(sound)] = sound
    return padded[ends[:, None] + np.arange(width)[None, :]]


def _at(values: Floats | None, times: NDArray[np.int64], length: int, width: int) -> Floats:
    """Rows of `values` at `times` (any shape), NaN past `length` and when there are no values."""
    if values is None:
        return np.full((*times.shape, width), np.nan, np.float32)
    rows = values[np.minimum(times, min(length, len(values)) - 1)].astype(np.float32)
    rows[times >= min(length, len(values))] = np.nan
    return rows


def cut_clip(
    session: TrainingSession,
    start: int,
    frames: int,
    spec: StudentSpec,
    rng: np.random.Generator,
    config: AugmentConfig,
    *,
    seen: Floats | None = None,
) -> dict[str, NDArray[np.generic]]:
    """One augmented clip of `frames` frames from frame `start` on.

    With `seen` [T, D], what frozen eyes made of the session, the clip carries that instead of pictures.
    """
    rate = 1.0 + float(rng.uniform(-config.stretch, config.stretch)) if config.stretch else 1.0
    ahead, width, length = max(spec.horizons), len(spec.au_names), session.n_frames
    times = augment.source_times(start, frames, ahead, rate)
    shown = np.minimum(times[:frames], length - 1)
    if seen is None:
        pictures = augment.light(augment.move_picture(session.front.frames[shown], rng, config), rng, config)
        features = np.zeros((frames, 0), np.float32)
    else:
        pictures, features = np.zeros((frames, 0), np.uint8), seen[shown]
    lead = spec.audio_window_samples
    count = clock.audio_end(start + frames - 1) - clock.samples_until(start) + lead
    sound = augment.stretch_sound(session.front.audio, clock.samples_until(start) - lead * rate, count, rate)
    ends = np.array([clock.audio_end(start + t) for t in range(frames)]) - clock.samples_until(start)
    windows = augment.loudness(sound, rng, config)[ends[:, None] + np.arange(lead)[None, :]]
    future = times[np.arange(frames)[:, None] + np.array(spec.horizons)[None, :]]
    soft = session.soft
    return {
        "frame_u8": pictures,
        "seen": features,
        "audio": windows,
        "present": augment.drop_senses(session.front.present[shown], rng, config),
        "prob": _at(session.prob, future, length, width),
        "act": _at(session.act, future, length, width),
        "soft_prob": _at(soft.prob if soft else None, future, length, width),
        "soft_act": _at(soft.act_logit if soft else None, future, length, width),
        "uncertainty": _at(soft.uncertainty if soft else None, future, length, width),
        "speaker_au": _at(session.speaker_au, times[:frames], length, width),
    }


def stack(clips: Sequence[dict[str, NDArray[np.generic]]]) -> Batch:
    """Clips of equal length side by side."""
    return Batch(**{k: torch.from_numpy(np.stack([c[k] for c in clips])) for k in clips[0]})
