"""Where sight and hearing meet, and where a missing sense is replaced by a learned vector.

concat            one product, 2·D² multiply-adds a frame, no memory: the default
cross_attention   the picture asks which of the last 16 frames of sound matter to it: about 6·D², remembers them
transformer       the two tokens of a frame exchange what they know: about 10·D² + 4·D·ffn, no memory

All three see the past alone; the temporal layers after them mix frames in any case. Which serves quality best is a
question to the data: `fusion` is one key of the preset.

Shapes: N = batch x frames, D width, F fusion window frames.
"""

import torch
from torch import Tensor, nn

from student.spec import StudentSpec
from student.streaming import attend, attention_bias, by_head

FUSION_WINDOW = 16
"""Frames of sound that a picture may attend to in `cross_attention`."""


class Missing(nn.Module):
    """Replace a sense that is absent by a learned vector; nothing of the absent input passes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, here: Tensor) -> Tensor:
        """`x` [N, D] where `here` [N, 1] is true, the learned vector where it is not."""
        return torch.where(here, x, self.vector)


class Concat(nn.Module):
    """Both vectors side by side through one layer: the fastest."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * spec.d_model, spec.d_model)

    def memory_shapes(self) -> dict[str, tuple[int, ...]]:
        """No memory."""
        return {}

    def forward(
        self, sight: Tensor, sound: Tensor, memory: list[Tensor], filled: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """[N, D] and [N, D] → [N, D]."""
        return self.mix(torch.cat([sight, sound], dim=1)), memory


class CrossAttention(nn.Module):
    """Sight asks, the last half second of hearing answers."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.window = min(FUSION_WINDOW, spec.window_frames)
        self.heads, self.width = spec.heads, spec.d_model
        self.query, self.key_value = nn.Linear(self.width, self.width), nn.Linear(self.width, 2 * self.width)
        self.out = nn.Linear(self.width, self.width)
        self.mix = nn.Linear(2 * spec.d_model, spec.d_model)

    def memory_shapes(self) -> dict[str, tuple[int, ...]]:
        """Keys and values of the sounds remembered."""
        shape = (self.heads, self.window - 1, self.width // self.heads)
        return {f"fusion_{n}": shape for n in ("key", "value")}

    def forward(
        self, sight: Tensor, sound: Tensor, memory: list[Tensor], filled: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """[N, D] and [N, D] → [N, D] and the next memory."""
        batch = filled.shape[0]
        bias = attention_bias(self.heads, self.window, sight.shape[0] // batch, filled)
        query = by_head(self.query(sight), batch, self.heads)
        new_key, new_value = by_head(self.key_value(sound), batch, 2 * self.heads).chunk(2, dim=1)
        heard, key, value = attend(query, new_key, new_value, memory[0], memory[1], bias)
        return self.mix(torch.cat([sight + self.out(heard), sound], dim=1)), [key, value]


class JointTransformer(nn.Module):
    """A small transformer layer over the two tokens of a frame."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        width = spec.d_model
        self.sense = nn.Parameter(torch.randn(2, width) * 0.02)
        self.norm, self.norm_ffn = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.act = nn.Linear(width, spec.ffn), nn.Linear(spec.ffn, width), nn.ReLU()
        self.mix = nn.Linear(2 * width, width)

    def memory_shapes(self) -> dict[str, tuple[int, ...]]:
        """No memory: the tokens of one frame only."""
        return {}

    def forward(
        self, sight: Tensor, sound: Tensor, memory: list[Tensor], filled: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """[N, D] and [N, D] → [N, D]."""
        width = sight.shape[1]
        tokens = (torch.stack([sight, sound], dim=1) + self.sense).reshape(-1, width)  # rows [2N, D]: INT8 products
        query, key, value = self.qkv(self.norm(tokens)).reshape(-1, 2, 3 * width).chunk(3, dim=-1)
        weights = torch.softmax(query @ key.transpose(1, 2) / width**0.5, dim=-1)
        tokens = tokens + self.out((weights @ value).reshape(-1, width))
        tokens = tokens + self.down(self.act(self.up(self.norm_ffn(tokens))))
        return self.mix(tokens.reshape(-1, 2 * width)), memory


def build_fusion(spec: StudentSpec) -> Concat | CrossAttention | JointTransformer:
    """The fusion that the spec names; raises ValueError listing the known ones."""
    known = {"concat": Concat, "cross_attention": CrossAttention, "transformer": JointTransformer}
    if spec.fusion not in known:
        raise ValueError(f"unknown fusion {spec.fusion!r}; known: {', '.join(known)}")
    return known[spec.fusion](spec)
