"""From windows to one soft sequence per session: overlap, taper, blend, and the spread as uncertainty.

Shapes: T frames of a session, W frames of a window, A units.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from dyad.action_units import SEED17
from dyad.config import from_dict
from dyad.layouts import processed
from dyad.provenance import read_json, run_card
from dyad.session import Session
from dyad.soft_labels import SoftLabelStore
from teacher import adapter, dataset
from teacher.backends import Backend
from teacher.backends.transformers import TransformersBackend
from teacher.windows import SpeakerMedia, WindowSpec, cut, starts

if TYPE_CHECKING:
    from teacher.label import Config

Floats = NDArray[np.float32]


def select(root: Path, split: str, only: str | None) -> list[Session]:
    """Sessions to label; raises ValueError when `only` names none."""
    splits = processed.SPLITS if split == "all" else (split,)
    sessions = [s for name in splits for s in processed.load(root, name)]
    if only is None:
        return sessions
    chosen = [s for s in sessions if s.id == only]
    if not chosen:
        raise ValueError(f"{root}: has no session {only!r}; it holds {', '.join(s.id for s in sessions[:3])} …")
    return chosen


def taper(frames: int) -> NDArray[np.float64]:
    """Weight of each frame of a window [W]: a raised cosine that never reaches 0, since the ends know less."""
    return 0.05 + 0.95 * np.sin(np.pi * (np.arange(frames) + 0.5) / frames) ** 2


def label_session(
    backend: Backend, speaker: SpeakerMedia, n_frames: int, spec: WindowSpec, *, hop: int, passes: int, batch: int
) -> tuple[Floats, Floats, Floats]:
    """Probability, activation log-odds and uncertainty of a session, each [T, A]."""
    at, w = starts(n_frames, spec, hop), taper(spec.frames)[:, None]
    total, logit, square, weight = (np.zeros((at[-1] + spec.frames, len(SEED17.units))) for _ in range(4))
    for first in range(0, len(at), batch):
        group = at[first : first + batch]
        cuts = [cut(speaker, start, spec) for start in group]
        pictures, sounds = np.stack([p for p, _ in cuts]), np.stack([s for _, s in cuts])
        for seed in (None, *range(1, passes)):
            answers = backend.label(pictures, sounds, None if seed is None else 7919 * seed + first)
            for start, answer in zip(group, answers.astype(np.float64), strict=True):
                span = slice(start, start + spec.frames)
                prob = 1 / (1 + np.exp(-answer[..., 0]))
                total[span] += w * prob
                square[span] += w * prob**2
                logit[span] += w * answer[..., 1]
                weight[span] += w
    prob, logit = total / weight, logit / weight
    spread = np.sqrt(np.maximum(square / weight - prob**2, 0))
    return tuple(v[:n_frames].astype(np.float32) for v in (np.clip(prob, 0, 1), logit, spread))  # pyright: ignore[reportReturnType]


def label_all(config: Config, sessions: list[Session], settings: dict[str, Any]) -> tuple[int, int, dict[str, str]]:
    """Label sessions into the store; returns how many were made, how many were there, and session → fault."""
    torch.set_num_threads(config.threads)
    backend = TransformersBackend(config.teacher)
    mark = adapter.teacher_hash(config.teacher)
    card = run_card(command="teacher.label", config=settings, inputs={"teacher": mark})
    store = SoftLabelStore.create(config.out, au_names=SEED17.units, teacher_hash=mark, run=card)
    for session_id, reason in store.broken():
        print(f"labelling {session_id} again: {reason}")
        store.remove(session_id)
    failed: dict[str, str] = {}
    done = kept = 0
    for session in tqdm(sessions, unit="session", mininterval=2.0):
        if session.id in store and config.only is None:
            kept += 1
            continue
        try:
            speaker = dataset.cached_speaker(config.dataset, session, backend.spec)
        except (ValueError, OSError) as error:
            failed[session.id] = str(error)
            continue
        labels = label_session(
            backend,
            speaker,
            session.n_frames,
            backend.spec,
            hop=config.hop_frames,
            passes=config.passes,
            batch=config.batch,
        )
        store.write(session.id, *labels)
        done += 1
    return done, kept, failed


COST = {"3b": (2.0, 9.4), "7b": (3.5, 17.9)}
"""TFLOP per second of media at 5 pictures per second of 224 px, and gigabytes of weights in bf16."""


def print_cost(teacher: Path, sessions: list[Session], hop_frames: int) -> None:
    """What labelling would take: windows, tokens, disk, and GPU hours for the released sizes."""
    contract = read_json(teacher / "teacher.json")
    spec = from_dict(WindowSpec, contract["window"], where=str(teacher / "teacher.json"))
    windows = sum(len(starts(s.n_frames, spec, hop_frames)) for s in sessions)
    seconds = windows * spec.frames / 30
    per_window = spec.pictures // 2 * (spec.size_px // 28) ** 2 + spec.frames * 25 // 30
    disk = sum(s.n_frames for s in sessions) * len(SEED17.units) * 3 * 4
    tokens = f"{windows * per_window:,} media tokens"
    print(f"{len(sessions)} sessions, {windows} windows, {tokens}, {disk / 1e6:.1f} MB of labels")
    for size, (tflop, gigabytes) in COST.items():
        scaled = tflop * (spec.size_px / 224) ** 2 * spec.video_fps / 5
        hours = seconds * scaled / (0.4 * 989) / 3600
        print(f"{size}: {seconds * scaled:,.0f} TFLOP, {hours:.2f} GPU hours at 40 % of 989 TFLOP/s, {gigabytes} GB")
