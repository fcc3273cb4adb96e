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
    """Depth-wise convolution over time that sees the last K frames: one weight per tap and channel.

    Memory [B, K-1, D]: the inputs of the last K-1 frames, zeros at the start of a stream.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.taps = nn.Parameter(torch.empty(kernel, width).uniform_(-1, 1) / math.sqrt(kernel))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-1, 1) / math.sqrt(kernel))

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """[B*T, D] → [B*T, D] and the next memory."""
        batch, width = memory.shape[0], x.shape[1]
        if (
            x.shape[0] == batch
        ):  # one frame needs no sliding: a product and a sum, where a Conv node costs ten times more
            seen = torch.cat([memory, x[:, None]], dim=1)
            return (seen * self.taps).sum(dim=1) + self.bias, seen[:, 1:]
        seen = torch.cat([memory, x.reshape(batch, -1, width)], dim=1)
        y = F.conv1d(seen.transpose(1, 2), self.taps.T[:, None], self.bias, groups=width)
        return y.transpose(1, 2).reshape(-1, width), seen[:, seen.shape[1] - (self.kernel - 1) :]


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


def attention_bias(heads: int, window: int, frames: int, filled: Tensor) -> Tensor:
    """What is added to the scores, [B, N, T, W-1+T]: age, and MASKED where nothing is remembered yet.

    `filled` [B, ≥ W-1] tells which remembered slots hold a frame, the latest last.
    """
    recent = filled[:, filled.shape[1] - (window - 1) :]
    seen = torch.cat([recent, filled.new_ones(filled.shape[0], frames)], dim=1)
    return window_bias(heads, frames, window).to(filled) + ((seen - 1) * -MASKED)[:, None, None, :]


def by_head(z: Tensor, batch: int, heads: int) -> Tensor:
    """[B*T, N*E] → [B, N, T, E]; for one frame that is a mere reshape."""
    frames, width = z.shape[0] // batch, z.shape[1] // heads
    if frames == 1:
        return z.reshape(batch, heads, 1, width)
    return z.reshape(batch, frames, heads, width).transpose(1, 2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, old_key: Tensor, old_value: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of T new frames on themselves and the last W-1, written out so that it exports to plain products.

    `query`, `key` and `value` of the new frames [B, N, T, E], `old_key` and `old_value` [B, N, W-1, E] of those
    remembered, `bias` from `attention_bias` → [B*T, N*E], next old key, next old value.
    """
    batch, _, frames, width = query.shape
    keys, values = torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)
    scores = (query / math.sqrt(width)) @ keys.transpose(-1, -2) + bias
    mixed = F.softmax(scores, dim=-1) @ values
    if frames > 1:
        mixed = mixed.transpose(1, 2)
    return mixed.reshape(batch * frames, -1), keys[:, :, frames:], values[:, :, frames:]


class TemporalLayer(nn.Module):
    """Causal convolution, windowed attention, feed-forward; each normalised per frame and added to the stream.

    LayerNorm looks at one frame alone: nothing of a later frame can enter through normalisation.
    """

    def __init__(self, width: int, kernel: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.norm_conv, self.norm_attention, self.norm_ffn = (nn.LayerNorm(width) for _ in range(3))
        self.conv = CausalConv(width, kernel)
        self.mix = nn.Linear(width, width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, conv: Tensor, key: Tensor, value: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B*T, D] → [B*T, D] and the next memories of convolution, keys and values."""
        inner, conv = self.conv(self.norm_conv(x), conv)
        x = x + self.drop(self.mix(self.act(inner)))
        new = by_head(self.qkv(self.norm_attention(x)), key.shape[0], 3 * key.shape[1])
        query, new_key, new_value = new.chunk(3, dim=1)
        inner, key, value = attend(query, new_key, new_value, key, value, bias)
        x = x + self.drop(self.out(inner))
        x = x + self.drop(self.down(self.act(self.up(self.norm_ffn(x)))))
        return x, conv, key, value
