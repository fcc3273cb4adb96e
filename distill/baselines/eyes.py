"""Trans-VAE's eyes, opened as the student's are: on frames whose speaker's own action units are known, before any clip.

The published model has no such phase: its encoder learns from listeners alone, through one noisy sample of 128 numbers,
which on half an hour of conversation teaches it little. Frames are drawn from everywhere in a session and normalised
together, which is what the running statistics of a long session come to. `eyes_steps: 0` leaves the phase out, sessions
without units as well.
Shapes: B sessions, T frames, U units, D = 128, h = w pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from distill import losses
from distill.baselines import rollout
from distill.baselines.inputs import UNITS, Material
from distill.baselines.transvae import TransVae
from distill.baselines.vision import WIDTH
from dyad import augment
from dyad.augment import AugmentConfig

SESSIONS, FRAMES = 8, 16
"""Of a step."""
LEARNING_RATE = 3e-3


def open_eyes(
    model: TransVae, materials: Sequence[Material], config: AugmentConfig, *, steps: int, seed: int
) -> float | None:
    """Train the video encoder in place; the last loss, None where nothing is known or no step is wanted."""
    known = [m for m in materials if not np.isnan(m.speaker).all()]
    if not known or not steps:
        return None
    head = nn.Linear(WIDTH, len(UNITS)).to(model.tokens.device)
    parameters = [*model.video.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    loss = float("nan")
    for step in tqdm(range(steps), unit="step", desc="eyes", mininterval=2.0):
        rng = np.random.default_rng((seed, 3, step))
        pictures, units = (x.to(model.tokens.device) for x in draw_frames(known, rng, config))
        error = losses.cross_entropy(head(model.video(rollout.pictures(pictures))), units)
        optimizer.zero_grad(set_to_none=True)
        error.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        loss = float(error.detach())
    return loss


def draw_frames(
    materials: Sequence[Material], rng: np.random.Generator, config: AugmentConfig
) -> tuple[Tensor, Tensor]:
    """Crops [B, T, h, w, 3] uint8 and their speakers' units [B, T, U], NaN where unknown; frames from anywhere."""
    pictures: list[NDArray[np.uint8]] = []
    units: list[NDArray[np.float32]] = []
    for i in rng.integers(len(materials), size=SESSIONS):
        material = materials[int(i)]
        at = np.sort(rng.integers(material.n_frames, size=FRAMES))
        pictures.append(augment.light(augment.move_picture(material.frames[at], rng, config), rng, config))
        units.append(material.speaker[at])
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(units))


@torch.no_grad()
def look(model: TransVae, frames_u8: NDArray[np.uint8], clips: Sequence[slice] = ()) -> Tensor:
    """What the eyes make of a session's frames [T, h, w, 3]: [T, D] online, where each knows its window's end.

    Offline every clip is normalised by itself, [N, frames, D]; without any, each frame with the whole session, [T, D],
    which takes memory for all frames at once, half a megabyte for each of 64 px. None then needs pictures any more.
    """
    device = model.tokens.device
    if model.online:
        crops = torch.from_numpy(np.array(frames_u8))[None].to(device)
        return rollout.features(model, crops)[0, : len(frames_u8)].cpu()
    if not clips:
        return model.video(rollout.pictures(torch.from_numpy(np.array(frames_u8))[None].to(device)))[0].cpu()
    shown = (torch.from_numpy(np.array(frames_u8[clip]))[None].to(device) for clip in clips)
    return torch.cat([model.video(rollout.pictures(crops)) for crops in shown]).cpu()
