"""The eyes of Trans-VAE: convolutions within each frame, normalised over time, and a mean over the picture.

InstanceNorm3d takes its statistics over all frames handed in, so online, as published, every window encodes all that
went before again. With `window` given, a frame's statistics are those of all frames up to the end of its window, kept
as running sums: each frame is encoded once, nothing later than its window reaches it, and in the first layer the newest
window comes out as if all had been encoded again. To normalise each window by itself would be simpler; whether it
learns worse was not established.

Shapes: B batch, C channels, T frames, K frames of a window, h x w pixels, D = 128.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 128
EPSILON = 1e-5


class Sums(NamedTuple):
    """What one layer has seen: number of values, their sum and sum of squares, both [B, C] float64."""

    values: int
    total: Tensor
    squares: Tensor


State = tuple[Sums | None, ...]
"""One per layer; None before the first frame."""
NOTHING: State = (None,) * 5


def running_norm(x: Tensor, window: int, past: Sums | None) -> tuple[Tensor, Sums]:
    """[B, C, T, h, w] normalised window by window, each by all values up to its end; T is a multiple of the window."""
    cut = x.unflatten(2, (-1, window))  # [B, C, W, K, h, w]
    each = cut[0, 0, 0].numel()
    variance, mean = (v.double() for v in torch.var_mean(cut, dim=(3, 4, 5), correction=0))
    total, squares = (each * v.cumsum(dim=2) for v in (mean, variance + mean**2))
    count = each * torch.arange(1, cut.shape[2] + 1, device=x.device)
    if past is not None:
        total, squares, count = total + past.total[..., None], squares + past.squares[..., None], count + past.values
    mean = total / count
    scale = torch.rsqrt((squares / count - mean**2).clamp(min=0) + EPSILON)
    shift, scale = (v.to(x.dtype)[..., None, None, None] for v in (-mean * scale, scale))
    seen = (0 if past is None else past.values) + each * cut.shape[2]
    return torch.addcmul(shift, cut, scale).flatten(2, 3), Sums(seen, total[..., -1], squares[..., -1])


class Layer(nn.Module):
    """Convolution, normalisation over time and picture, ReLU."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int) -> None:
        super().__init__()
        size, step, pad = (1, kernel, kernel), (1, stride, stride), (0, kernel // 2, kernel // 2)
        self.conv = nn.Conv3d(inside, outside, size, step, padding=pad, bias=False)

    def forward(self, x: Tensor, window: int | None, past: Sums | None) -> tuple[Tensor, Sums | None]:
        """Without a window the statistics are those of all frames handed in."""
        x = self.conv(x)
        if window is None:
            return torch.relu(F.instance_norm(x)), None
        x, past = running_norm(x, window, past)
        return torch.relu(x), past


class VideoEncoder(nn.Module):
    """Frames [B, 3, T, h, w] in [-1, 1] → [B, T, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = Layer(3, 32, 7, 2), Layer(32, WIDTH, 7, 2), Layer(WIDTH, WIDTH, 3, 2)
        self.residual, self.last = Layer(WIDTH, WIDTH, 3, 1), Layer(WIDTH, WIDTH, 3, 2)
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, video: Tensor) -> Tensor:
        """Clip-wide normalisation: every frame's features depend on all frames handed in."""
        return self.windows(video, None)[0]

    def windows(self, video: Tensor, window: int | None, state: State = NOTHING) -> tuple[Tensor, State]:
        """Features, and the state to go on from; `window` divides T."""
        x, first = self.first(video, window, state[0])
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        x, second = self.second(x, window, state[1])
        x, third = self.third(x, window, state[2])
        more, residual = self.residual(x, window, state[3])
        x, last = self.last(x + more, window, state[4])
        return self.project(x.mean(dim=(3, 4)).transpose(1, 2)), (first, second, third, residual, last)
