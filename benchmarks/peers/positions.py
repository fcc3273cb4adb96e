"""Sine and cosine of a frame's number (Vaswani et al., "Attention is all you need", 2017): order for an attention.

Shapes: T frames, D width, even.
"""

import math

import torch
from torch import Tensor


def sines(frames: int, width: int) -> Tensor:
    """[T, D], periods from 6 frames to 60 000."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(frames)[:, None] * rates
    return torch.stack([torch.sin(angle), torch.cos(angle)], dim=2).flatten(1)
