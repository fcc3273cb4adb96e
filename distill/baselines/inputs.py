"""What Trans-VAE sees and hears, and what it is to answer, at the dataset's 30 frames a second.

Cepstra: 13 per column (the first is the energy), two columns a frame, and their first and second differences over the
two: 78 numbers. The published code takes the samples of the frame, which hold two columns at 25 frames a second but
only one at 30; here a frame has the two columns that end with it. With two columns the second differences are always 0,
here as there. Crops are the student's, from the same cache.
Shapes: T frames, S samples, A attributes, h = w pixels of a crop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distill.baselines.settings import N_FACE, TransVaeSettings
from dyad import clock
from dyad.action_units import REACT15, REACT_ATTRIBUTES, SEED17
from dyad.layouts import attributes, challenge, processed, react2024, react2025
from dyad.layouts.challenge import Item
from dyad.session import Session
from student import front_cache
from student.spec import StudentSpec

Floats = NDArray[np.float32]
COLUMN_SAMPLES, COLUMN_SHIFT = 400, 160
"""25 ms, 10 ms later the next."""
COEFFICIENTS = 13
UNITS = (*SEED17.units, *(u for u in REACT15.units if u not in SEED17.units))
"""Every unit that a dataset may have annotated; the product's own come first, in its order."""


@dataclass(frozen=True)
class Material:
    """One session: crops [T, h, w, 3] uint8, cepstra [T, 78], targets [T, A] and [T, 58], NaN where not annotated.

    `speaker`: the speaker's own UNITS [T, U], NaN where they are not known or no face is seen.
    """

    id: str
    frames: NDArray[np.uint8]
    cepstra: Floats
    attributes: Floats
    face: Floats
    speaker: Floats

    @property
    def n_frames(self) -> int:
        """Frames that both pictures and annotation have."""
        return min(len(self.frames), len(self.attributes))


def cepstra(sound: Floats, frames: int) -> Floats:
    """[T, 78] of sound [S] at 16 kHz; frame t uses no sample after its end, and silence before the start."""
    from torchaudio.compliance import kaldi

    length = COLUMN_SAMPLES + COLUMN_SHIFT
    ends = np.array([clock.audio_end(t) for t in range(frames)])
    padded = np.zeros(length + max(int(ends[-1]), len(sound)), np.float32)
    padded[length : length + len(sound)] = sound
    starts = ends[:, None] + np.array([0, COLUMN_SHIFT])  # in `padded`: the later column ends with the frame
    cut = padded[starts[..., None] + np.arange(COLUMN_SAMPLES)].reshape(1, -1)
    column_ms = 1000 * COLUMN_SAMPLES / clock.SAMPLE_RATE_HZ
    columns = kaldi.mfcc(
        torch.from_numpy(cut),
        sample_frequency=clock.SAMPLE_RATE_HZ,
        frame_length=column_ms,
        frame_shift=column_ms,
        num_ceps=COEFFICIENTS,
        use_energy=True,
    )
    static = columns.reshape(frames, 2, COEFFICIENTS).numpy()
    rise = np.repeat(0.3 * (static[:, 1:] - static[:, :1]), 2, axis=1)  # regression over five columns, ends repeated
    return np.stack([static, rise, np.zeros_like(static)], axis=1).reshape(frames, -1).astype(np.float32)


def spec_of(settings: TransVaeSettings) -> StudentSpec:
    """The front end that makes crops of this size: the student's."""
    return StudentSpec(crop_px=settings.crop_px)


def open_split(
    root: Path, split: str, settings: TransVaeSettings, *, workers: int, first: int | None = None
) -> list[Material]:
    """The sessions of a split, or its `first` ones, that can be decoded; the others are named and left out."""
    sessions = processed.load(root, split, au_names=UNITS)[:first]
    left_out = front_cache.ensure_all(root, sessions, spec_of(settings), workers=workers)
    for session_id, reason in left_out.items():
        print(f"left out {session_id}: {reason}")
    items = _challenge_items(settings.challenge, split) if settings.challenge else {}
    opened = [_material(root, s, settings, items.get(s.id)) for s in sessions if s.id not in left_out]
    if not opened:
        raise ValueError(f"{root}/processed/{split}: no session can be learned from; see the reasons above")
    if settings.challenge and not items.keys() & {m.id for m in opened}:
        raise ValueError(f"{settings.challenge}: lists none of the sessions in {root}; give the folder it was made of")
    return opened


def _material(root: Path, session: Session, settings: TransVaeSettings, item: Item | None) -> Material:
    front = front_cache.load(root, session.id, spec_of(settings))
    n = min(len(front.frames), session.n_frames)
    wanted = attributes.by_name(session.prob[:n], UNITS, settings.names)
    face = np.full((n, N_FACE), np.nan, np.float32)
    if item is not None:
        rows = attributes.read(item.listener.attributes)
        absent = np.flatnonzero(np.isnan(wanted).min(axis=0))
        others = [int(i) for i in absent if settings.names[i] in REACT_ATTRIBUTES]
        told = attributes.named(rows, item.fps, [settings.names[i] for i in others])[:n]
        wanted[: len(told), others] = told
        coefficients = challenge.coefficients(item.listener)
        held = attributes.on_grid(coefficients, item.fps)[0][:n]
        face[: len(held)] = held
    own = _speaker(root, session, front, n)
    return Material(session.id, front.frames[:n], cepstra(front.audio, n), wanted, face, own)


def _speaker(root: Path, session: Session, front: front_cache.FrontSession, n: int) -> Floats:
    own, out = processed.speaker_units(root, session.id, UNITS), np.full((n, len(UNITS)), np.nan, np.float32)
    if own is not None:
        out[: len(own)] = own[:n]
        out[front.present[:n, 0] < 0.5] = np.nan
    return out


def _challenge_items(root: Path, split: str) -> Mapping[str, Item]:
    """Both directions of every clip of a split, by the name that its session has."""
    lists = [react2024.root_of(root) / f"{name}.csv" for name in challenge.SPLITS]
    layout = react2024 if any(path.is_file() for path in lists) else react2025
    return {item.id: item for item in layout.items(root, split, allow_shared_subjects=True)}


def learned(materials: list[Material]) -> NDArray[np.bool_]:
    """Which attributes [A] any of the sessions is annotated for."""
    known = [~np.isnan(m.attributes).all(axis=0) for m in materials]
    return np.stack(known).max(axis=0)
