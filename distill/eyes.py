"""Open the eyes first: teach the visual backbone to read the speaker's own action units off single frames.

Frames of one clip are nearly the same picture; single frames drawn from everywhere teach a backbone from scratch far
faster than clips do. Needs the speaker's units (synthetic truth, or a table that the user supplies); without them the
phase is skipped. It sees single frames only, so nothing of time can leak.
Shapes: N frames, A units.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from distill import losses
from distill.batches import TrainingSession
from distill.crew import Crew
from dyad import augment
from dyad.augment import AugmentConfig
from dyad.provenance import atomic_path, sha256_bytes
from student import checkpoint
from student.model import Student
from student.quantization import layout_of
from student.vision import Vision


def draw_frames(
    sessions: Sequence[TrainingSession], count: int, rng: np.random.Generator, config: AugmentConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels [N, h, w, 3] uint8 and speaker units [N, A], one frame each from random sessions that show a face."""
    pictures, units = [], []
    while len(pictures) < count:
        session = sessions[int(rng.integers(len(sessions)))]
        t = int(rng.integers(session.n_frames))
        if session.speaker_au is None or t >= len(session.speaker_au) or session.front.present[t, 0] < 0.5:
            continue
        picture = np.asarray(session.front.frames[t : t + 1])
        pictures.append(augment.light(augment.move_picture(picture, rng, config), rng, config)[0])
        units.append(session.speaker_au[t])
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(units))


def _shows_a_face(session: TrainingSession, known_frames: int) -> bool:
    return bool(session.front.present[: min(session.n_frames, known_frames), 0].any())


def open_eyes(
    vision: Vision,
    head: nn.Linear,
    sessions: Sequence[TrainingSession],
    config: AugmentConfig,
    crew: Crew,
    *,
    steps: int,
    batch: int = 256,
    learning_rate: float = 6e-3,
    seed: int = 0,
) -> float | None:
    """Train `vision` and `head` in place; returns the last loss, None when no session knows its speaker's units."""
    known = [s for s in sessions if s.speaker_au is not None and _shows_a_face(s, len(s.speaker_au))]
    if not known or steps == 0:
        return None
    parameters = [*vision.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    smoothed = float("nan")
    for step in tqdm(range(steps), unit="step", desc="eyes", mininterval=2.0, disable=not crew.leads):
        rng = np.random.default_rng(crew.seed(seed, 3, step))
        pictures, units = (x.to(crew.device) for x in draw_frames(known, batch, rng, config))
        with crew.autocast(quantising=False):
            logit = head(torch.relu(vision(pictures)))
        loss = losses.cross_entropy(logit.float(), units)
        if not torch.isfinite(loss):
            raise ValueError(f"eyes: loss became {loss.item()} at step {step}; lower the learning rate and run again")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        crew.average(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        value = float(loss.detach())
        smoothed = value if np.isnan(smoothed) else 0.95 * smoothed + 0.05 * value
    return smoothed


def take_eyes(model: Student, folder: Path) -> None:
    """Copy the eyes of a float checkpoint into `model`; raises ValueError where the two see differently."""
    other = checkpoint.load(folder)
    fields = ("crop_px", "backbone", "backbone_stride", "visual_channels", "d_model")
    if odd := [f for f in fields if getattr(other.spec, f) != getattr(model.spec, f)]:
        raise ValueError(f"{folder}: its eyes differ in {', '.join(odd)}; take those of a student of the same preset")
    if layout_of(other):
        raise ValueError(f"{folder}: is quantised; take the eyes of its float parent, the folder 'float' beside it")
    model.vision.load_state_dict(other.vision.state_dict())


def eyes_hash(vision: Vision) -> str:
    """Short hash of the eyes' weights."""
    content = b"".join(t.detach().cpu().contiguous().numpy().tobytes() for t in vision.state_dict().values())
    return sha256_bytes(content)[:12]


@torch.no_grad()
def look(
    model: Student, session: TrainingSession, folder: Path | None = None, chunk_frames: int = 512
) -> NDArray[np.float32]:
    """What the eyes make of every frame of a session, [T, D]: once the eyes are frozen, clips need no pictures.

    With `folder`, kept there as <hash of the eyes>.npy and read again next time.
    """
    kept = folder / f"seen-{eyes_hash(model.vision)}.npy" if folder else None
    if kept is not None and kept.is_file():
        return np.load(kept)
    model.eval()
    device = model.heads.out.bias.device
    parts = [
        torch.from_numpy(np.array(session.front.frames[i : i + chunk_frames]))[None].to(device)
        for i in range(0, session.n_frames, chunk_frames)
    ]
    seen = np.concatenate([model.visual_features(part)[0].cpu().numpy() for part in parts])
    if kept is not None:
        with atomic_path(kept) as part, part.open("wb") as file:
            np.save(file, seen)
    return seen
