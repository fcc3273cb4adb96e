"""A small Trans-VAE, and what it sees and hears: for tests of the baselines."""

import torch
from torch import Tensor

from distill.baselines import rollout
from distill.baselines.settings import TransVaeSettings
from distill.baselines.transvae import TransVae

FRAMES, WINDOW, PX = 22, 4, 32
SMALL = TransVaeSettings(window_frames=WINDOW, context_frames=12, crop_px=PX, ahead_frames=5, samples=2, diversity=0.1)


def seen(batch: int = 1, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    maker = torch.Generator().manual_seed(1)
    crops = torch.randint(0, 256, (batch, frames, PX, PX, 3), dtype=torch.uint8, generator=maker)
    return crops, torch.randn(batch, frames, 78, generator=maker)


def small_model(*, online: bool = True) -> TransVae:
    torch.manual_seed(0)
    return TransVae(online=online, window_frames=WINDOW).eval()


def answer(model: TransVae, crops: Tensor, cepstra: Tensor, settings: TransVaeSettings = SMALL) -> Tensor:
    """Attributes [B, T, A] at the mean of every distribution."""
    looks = rollout.behaviours(model, crops, cepstra, settings)
    return rollout.respond(model, looks, crops.shape[1], torch.zeros(len(looks), len(crops), 128)).attributes
