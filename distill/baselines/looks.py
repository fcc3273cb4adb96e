"""What eyes that stay as they are make of every frame, once and for all: steps then need no pictures.

A feature knows the frames that it was normalised with. Online these are all up to its window's end, so that a clip may
begin with any window of the session. Offline they are either the whole session, so that a clip may begin anywhere, or
the clip: clips then lie end to end, and each is looked at on its own.

OUT/looks.safetensors   by session, so that a run that goes on need not look again
Shapes: T frames, N clips, D = 128.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from distill.baselines import eyes, predict
from distill.baselines.inputs import Material
from dyad.provenance import atomic_path

if TYPE_CHECKING:
    from distill.baselines.folder import Trained
    from distill.baselines.transvae import TransVae
    from distill.train import Config


def kept(config: Config) -> bool:
    """Whether features never change: not where eyes learn, nor where each window encodes its history anew."""
    online = config.baseline == "transvae-online"
    return config.freeze_eyes and not (online and config.transvae.encode == "history")


def refuse(config: Config) -> None:
    """Raise ValueError where features are to know a whole session, but eyes that learn see only clips."""
    if config.transvae.normalise == "session" and not config.freeze_eyes:
        raise ValueError("transvae.normalise session needs eyes that stay as they are: add --freeze-eyes")


def of_clips(model: TransVae, materials: Sequence[Material], config: Config) -> tuple[list[Tensor], int]:
    """Of every session, [T, D] or [N, clip_frames, D], and the grid on which its clips begin; nothing if not kept."""
    by_clip = not model.online and config.transvae.normalise == "clip"
    if not kept(config):
        return [], 1
    length, path = config.clip_frames, config.out / "looks.safetensors"
    held = load_file(str(path)) if path.is_file() else {}
    for material in tqdm([m for m in materials if m.id not in held], desc="looks", mininterval=2.0):
        n = material.n_frames
        clips = [slice(start, start + length) for start in range(0, n - length + 1, length)]
        held[material.id] = eyes.look(model, material.frames[:n], clips if by_clip else ())
    with atomic_path(path) as part:
        save_file(held, str(part))
    grid = config.transvae.window_frames if model.online else length if by_clip else 1
    return [held[m.id] for m in materials], grid


def of_pieces(trained: Trained, materials: Sequence[Material], config: Config) -> list[Tensor | None]:
    """Of every session what `predict.answers` takes; None if not kept."""
    if not kept(config):
        return [None] * len(materials)
    return [
        eyes.look(trained.model, m.frames[: m.n_frames], predict.looked_at(trained, m.n_frames))
        for m in tqdm(materials, desc="looks", mininterval=2.0)
    ]
