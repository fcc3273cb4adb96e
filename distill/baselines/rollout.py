"""Trans-VAE over a whole clip: window after window online, all at once offline; every frame is answered.

Shapes: B batch, T frames, W windows of K frames, D = 128, A attributes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distill.baselines.settings import N_FACE, TransVaeSettings
from distill.baselines.transvae import TransVae
from distill.baselines.vision import NOTHING, WIDTH

ENCODED_AT_ONCE = 16
"""Windows per pass of the video encoder when a session is predicted: bounds the memory."""


class Response(NamedTuple):
    """The answer to a clip, 3DMM [B, T, 58] and attributes [B, T, A]; distributions [B, W, D] behind it."""

    face: Tensor
    attributes: Tensor
    mean: Tensor
    log_variance: Tensor


def pictures(frames_u8: Tensor) -> Tensor:
    """Crops [B, T, h, w, 3] uint8 → [B, 3, T, h, w] in [-1, 1]."""
    return frames_u8.movedim(-1, 1).float() / 127.5 - 1


def whole_windows(values: Tensor, window: int) -> Tensor:
    """[B, T, …] with the last frame repeated until T is a multiple of the window."""
    missing = -values.shape[1] % window
    return values if not missing else torch.cat([values, values[:, -1:].expand(-1, missing, *values.shape[2:])], dim=1)


def behaviours(model: TransVae, shown: Tensor, cepstra: Tensor, settings: TransVaeSettings) -> list[Tensor]:
    """What each answer may look at, one [B, ≤ context, D] per window; offline a single one with all frames.

    No entry depends on a frame after its window. Crops [B, T, h, w, 3], or what `eyes.look` made of them [B, T, D]
    unless each window encodes its history; cepstra [B, T, 78].
    """
    if not model.online:
        return [model.joined(shown if shown.ndim == 3 else model.video(pictures(shown)), cepstra)]
    window, context = model.window_frames, settings.context_frames
    shown, cepstra = whole_windows(shown, window), whole_windows(cepstra, window)
    total = cepstra.shape[1]
    spans = [(max(end - context, 0) if context else 0, end) for end in range(window, total + 1, window)]
    if settings.encode == "history":
        return [model.encode(pictures(shown[:, a:b]), cepstra[:, a:b]) for a, b in spans]
    behaviour = model.joined(shown if shown.ndim == 3 else features(model, shown), cepstra)
    return [behaviour[:, a:b] for a, b in spans]


def features(model: TransVae, frames_u8: Tensor) -> Tensor:
    """Crops [B, T, h, w, 3] → [B, T, D] with T whole windows, every frame encoded once, knowing its window's end."""
    window = model.window_frames
    frames_u8 = whole_windows(frames_u8, window)
    state = NOTHING
    parts: list[Tensor] = []
    for start in range(0, frames_u8.shape[1], ENCODED_AT_ONCE * window):
        part = pictures(frames_u8[:, start : start + ENCODED_AT_ONCE * window])
        seen, state = model.video.windows(part, window, state)
        parts.append(seen)
    return torch.cat(parts, dim=1)


def respond(model: TransVae, looks: Sequence[Tensor], frames: int, noise: Tensor) -> Response:
    """Answer `frames` frames with the samples that `noise` [W, B, D] chooses; zeros choose the mean.

    Online each window reads the model's own answers to the windows before, as many as its context holds.
    """
    batch = noise.shape[1]
    face = noise.new_zeros(batch, 0, N_FACE)
    attributes = noise.new_zeros(batch, 0, model.n_attributes)
    means: list[Tensor] = []
    log_variances: list[Tensor] = []
    for behaviour, drawn in zip(looks, noise, strict=True):
        behaviour = behaviour.expand(batch, -1, -1)
        past = behaviour.shape[1] - model.window_frames if model.online else 0
        first = face.shape[1] - past
        now = model.react(behaviour, face[:, first:], attributes[:, first:], drawn)
        face, attributes = torch.cat([face, now.face], dim=1), torch.cat([attributes, now.attributes], dim=1)
        means.append(now.mean)
        log_variances.append(now.log_variance)
    return Response(face[:, :frames], attributes[:, :frames], torch.stack(means, 1), torch.stack(log_variances, 1))


def draw(windows: int, batch: int, generator: torch.Generator) -> Tensor:
    """Noise [W, B, D] for `respond`."""
    return torch.randn(windows, batch, WIDTH, generator=generator)
