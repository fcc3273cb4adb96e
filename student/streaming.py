"""The streaming protocol, and the two layers that remember: causal convolution and windowed attention.

`forward(x, memory) -> (y, memory)`: a step is a call with T = 1, a whole sequence a call with T = all; same weights,
same code. Memory is passed in and handed back, of fixed size, never kept on a module. There is no absolute position
anywhere, so a stream may run for hours.

Shapes: B batch, T frames, D width, N heads, E width of a head, W window frames, K kernel frames.
ALiBi positions: Press et al., "Train short, test long" (2022).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -1e4
"""Added to the score of a slot that must not be seen; its weight underflows to exactly 0 in float32."""


class CausalConv(nn.Module):
    """Depth-wise convolution over time that sees the last K frames.

    Memory [B, D, K-1]: the inputs of the last K-1 frames, zeros at the start of a stream.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.conv = nn.Conv1d(width, width, kernel, groups=width)

    def forward(self, x_BDT: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D, T] → [B, D, T] and the next memory."""
        seen = torch.cat([memory, x_BDT], dim=2)
        return self.conv(seen), seen[:, :, seen.shape[2] - (self.kernel - 1) :]


def alibi_slopes(heads: int) -> Tensor:
    """Slope of each head, a geometric series: [N]."""
    return torch.tensor([2 ** (-8.0 * (i + 1) / heads) for i in range(heads)])


def window_bias(heads: int, frames: int, window: int) -> Tensor:
    """Relative-position bias [N, T, W-1+T] of T queries on W-1 remembered and T new keys.

    Query t sees the W keys that end with itself; older and later ones get MASKED.
    """
    query = torch.arange(frames)[:, None] + (window - 1)
    age = query - torch.arange(window - 1 + frames)[None, :]
    bias = -alibi_slopes(heads)[:, None, None] * age.clamp(min=0)
    return bias.masked_fill((age < 0) | (age >= window), MASKED)


class WindowedAttention(nn.Module):
    """Attention over the last W frames.

    Memory: key and value [B, W-1, D] of the last W-1 frames; `filled` [B, W-1] tells which of them hold a frame.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, source: Tensor, key: Tensor, value: Tensor, filled: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries from `x` [B*T, D], keys and values from `source` [B*T, D] → [B*T, D], next key, next value."""
        batch, frames = filled.shape[0], x.shape[0] // filled.shape[0]
        keys = torch.cat([key, self.key(source).reshape(batch, frames, -1)], dim=1)
        values = torch.cat([value, self.value(source).reshape(batch, frames, -1)], dim=1)
        seen = torch.cat([filled, filled.new_ones(batch, frames)], dim=1)
        bias = window_bias(self.heads, frames, self.window).to(x) + (seen[:, None, None, :] - 1) * -MASKED
        mixed = self._attend(self.query(x).reshape(batch, frames, -1), keys, values, bias)
        return self.out(mixed), keys[:, frames:], values[:, frames:]

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """[B, T, D] on [B, S, D] with bias [B, N, T, S] → [B*T, D]; written out, so that it exports to products."""
        query, keys, values = (self._split(z) for z in (query, keys, values))
        scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
        mixed = F.softmax(scores, dim=-1) @ values
        return mixed.transpose(1, 2).reshape(-1, self.out.in_features)

    def _split(self, z_BTD: Tensor) -> Tensor:
        batch, frames, width = z_BTD.shape
        return z_BTD.reshape(batch, frames, self.heads, width // self.heads).transpose(1, 2)


class TemporalLayer(nn.Module):
    """Causal convolution, windowed attention, feed-forward; each normalised per frame and added to the stream.

    LayerNorm looks at one frame alone: nothing of a later frame can enter through normalisation.
    """

    def __init__(self, width: int, heads: int, window: int, kernel: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.norm_conv, self.norm_attention, self.norm_ffn = (nn.LayerNorm(width) for _ in range(3))
        self.conv = CausalConv(width, kernel)
        self.mix = nn.Linear(width, width)
        self.attention = WindowedAttention(width, heads, window)
        self.up, self.down = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, conv: Tensor, key: Tensor, value: Tensor, filled: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B*T, D] → [B*T, D] and the next memories of convolution, keys and values."""
        batch, width = filled.shape[0], x.shape[1]
        inner = self.norm_conv(x).reshape(batch, -1, width).transpose(1, 2)
        inner, conv = self.conv(inner, conv)
        x = x + self.drop(self.mix(self.act(inner.transpose(1, 2).reshape(-1, width))))
        inner = self.norm_attention(x)
        inner, key, value = self.attention(inner, inner, key, value, filled)
        x = x + self.drop(inner)
        x = x + self.drop(self.down(self.act(self.up(self.norm_ffn(x)))))
        return x, conv, key, value
