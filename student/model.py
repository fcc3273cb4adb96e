"""The student: a causal conv-transformer that watches a face, hears a voice and plans the listener's next 267 ms.

    frame_u8 ─ vision ─┐
                       ├─ fusion ─ temporal layers ─ heads ─ logits [B, T, H, A, 2]
    audio ──── ears ───┘

`forward(frame_u8, audio, present, state) -> (logits, state)`: a live step is a call with T = 1, training a call with
T = all. The state is a NamedTuple of fixed-size tensors, handed in and out.

Shapes: B batch, T frames, S = 800 samples, H horizons, A units, D width, W window, K kernel.
"""

from collections import namedtuple
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from student.audio import Audio
from student.fusion import Missing, build_fusion
from student.heads import Heads
from student.spec import StudentSpec
from student.streaming import TemporalLayer, attention_bias
from student.vision import Vision


@cache
def _state_type(names: tuple[str, ...]) -> Any:
    return namedtuple("State", names)


class Student(nn.Module):
    """The streaming model of a spec. Nothing of a stream is ever stored on it."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.spec = spec
        self.vision = Vision(spec)
        self.audio = Audio(spec)
        self.no_sight, self.no_sound = Missing(spec.d_model), Missing(spec.d_model)
        self.fusion = build_fusion(spec)
        self.layers = nn.ModuleList(
            TemporalLayer(spec.d_model, spec.conv_kernel, spec.ffn, spec.dropout) for _ in range(spec.layers)
        )
        self.heads = Heads(spec)

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every state tensor, without the batch axis."""
        spec = self.spec
        remembered, conv = spec.window_frames - 1, (spec.conv_kernel - 1, spec.d_model)
        keys = (spec.heads, remembered, spec.d_model // spec.heads)
        shapes: dict[str, tuple[int, ...]] = {
            "filled": (remembered,),
            "sound": conv,
            **self.fusion.memory_shapes(),
        }
        for i in range(spec.layers):
            shapes |= {f"conv{i}": conv, f"key{i}": keys, f"value{i}": keys}
        return shapes

    def init_state(self, batch: int) -> Any:
        """The state before the first frame: nothing remembered, every slot empty."""
        device = self.heads.out.bias.device
        shapes = self.state_shapes()
        return _state_type(tuple(shapes))(*(torch.zeros(batch, *s, device=device) for s in shapes.values()))

    def visual_features(self, frame_u8: Tensor) -> Tensor:
        """Pixels [B, T, h, w, 3] uint8 → what the eyes make of each frame alone, [B, T, D]."""
        return self.vision(frame_u8.flatten(0, 1)).reshape(*frame_u8.shape[:2], -1)

    def forward(self, frame_u8: Tensor, audio: Tensor, present: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One or many frames.

        Args:
            frame_u8: face crops [B, T, h, w, 3], RGB, 0…255.
            audio: [B, T, 800], the samples that end with each frame, in [-1, 1].
            present: [B, T, 2], 1 where there is a face, where there is sound; else 0.
            state: what `init_state` or the last call returned.

        Returns:
            Log-odds [B, T, H, A, 2] (probability, activation) for frames t + horizons, and the next state.

        """
        return self.from_features(self.visual_features(frame_u8), audio, present, state)

    def from_features(self, seen: Tensor, audio: Tensor, present: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As `forward`, from visual features [B, T, D]; training uses it to attach a head of its own to them."""
        batch, frames = seen.shape[:2]
        logits, state = self.advance(seen.flatten(0, 1), audio.flatten(0, 1), present.flatten(0, 1), state)
        return logits.reshape(batch, frames, *self.heads.shape), state

    def advance(self, seen: Tensor, audio: Tensor, present: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The arithmetic, on flat rows: features [B*T, D], sound [B*T, 800], flags [B*T, 2] → log-odds [B*T, H, A, 2].

        B is the state's. Rows keep every product two-dimensional, which is what exports to the leanest step.
        """
        frames = seen.shape[0] // state.filled.shape[0]
        here = present > 0.5
        # An absent sound becomes silence before the ears: it could come back through their memory of earlier frames.
        audio = torch.where(here[:, 1:], audio, audio.new_zeros(()))
        memory: dict[str, Tensor] = state._asdict()
        heard, memory["sound"] = self.audio(audio, memory["sound"])
        sight = self.no_sight(seen, here[:, :1])
        sound = self.no_sound(heard, here[:, 1:])
        names = list(self.fusion.memory_shapes())
        x, fused = self.fusion(sight, sound, [memory[n] for n in names], state.filled)
        memory.update(zip(names, fused, strict=True))
        bias = attention_bias(self.spec.heads, self.spec.window_frames, frames, state.filled)
        for i, layer in enumerate(self.layers):
            slots = (f"conv{i}", f"key{i}", f"value{i}")
            x, *new = layer(x, *(memory[s] for s in slots), bias)
            memory.update(zip(slots, new, strict=True))
        filled = state.filled
        memory["filled"] = torch.cat([filled, filled.new_ones(filled.shape[0], frames)], dim=1)[:, frames:]
        return self.heads(x), type(state)(**memory)
