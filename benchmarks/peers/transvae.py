"""The peer of the REACT challenge: Trans-VAE, online, 224 px, windows of 8 frames with 64 frames of context.

The model is `distill/baselines/transvae.py`, where it can be trained too; here its windows are timed.

as_published      every window encodes its whole context of 64 frames again
new_frames_only   only the 8 new ones; what was made of the 56 before is kept. Not the same numbers: InstanceNorm3d
                  takes its statistics over time as well, so a kept feature knows nothing of the frames after it

Where it may differ from the published one: the context is 64 frames, not all that went before (the published cost grows
without end); cepstra lie ready, their extraction is not timed. Multiply-adds of a window: 18.0 G as published, 2.3 G
with the new frames alone.

Shapes: B batch, T context frames, K frames of a window, D = 128.
"""

from typing import Literal

import torch

from benchmarks.peers import Unit, multiply_adds, parameters
from distill.baselines.settings import N_FACE as FACE
from distill.baselines.transvae import ATTRIBUTES, CEPSTRA, WINDOW_FRAMES, TransVae
from distill.baselines.vision import WIDTH, VideoEncoder

__all__ = ["MODES", "Mode", "TransVae", "TransVaeStream", "VideoEncoder", "make"]

Mode = Literal["as_published", "new_frames_only"]
MODES: tuple[Mode, ...] = ("as_published", "new_frames_only")
CONTEXT_FRAMES, CROP_PX = 64, 224


class TransVaeStream:
    """The peer live, on resident random input; keeps behaviour and its own reactions of the context."""

    def __init__(
        self, model: TransVae, mode: Mode, *, context_frames: int = CONTEXT_FRAMES, crop_px: int = CROP_PX
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; known: {', '.join(MODES)}")
        if context_frames <= WINDOW_FRAMES:
            raise ValueError(f"context_frames must be more than a window of {WINDOW_FRAMES}, got {context_frames}")
        self.model, self.mode = model.eval(), mode
        fresh = context_frames if mode == "as_published" else WINDOW_FRAMES
        self._video = torch.rand(1, 3, fresh, crop_px, crop_px) * 2 - 1
        self._cepstra = torch.randn(1, fresh, CEPSTRA)
        past = context_frames - WINDOW_FRAMES
        self._behaviour = torch.randn(1, past, WIDTH)
        self.face, self.attributes = torch.zeros(1, past, FACE), torch.zeros(1, past, ATTRIBUTES)

    @torch.no_grad()
    def window(self) -> None:
        """Answer the next 8 frames; the reactions move into `face` [1, T-8, 58] and `attributes` [1, T-8, 25]."""
        behaviour = self.model.encode(self._video, self._cepstra)
        if self.mode == "new_frames_only":
            behaviour = torch.cat([self._behaviour, behaviour], dim=1)
            self._behaviour = behaviour[:, WINDOW_FRAMES:]
        now = self.model.react(behaviour, self.face, self.attributes)
        self.face = torch.cat([self.face, now.face], dim=1)[:, WINDOW_FRAMES:]
        self.attributes = torch.cat([self.attributes, now.attributes], dim=1)[:, WINDOW_FRAMES:]


def make(mode: Mode = "as_published") -> Unit:
    """One window of 8 frames."""
    torch.manual_seed(0)
    stream = TransVaeStream(TransVae(), mode)
    facts = {"parameters": parameters(stream.model), "multiply_adds": multiply_adds(stream.window)}
    return Unit(work=stream.window, frames=WINDOW_FRAMES, facts=facts)
