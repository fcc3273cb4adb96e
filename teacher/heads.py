"""From hidden states at media tokens to action units at 30 Hz.

Media slots, the tokens of a picture kept apart (where on the face they lie is most of what they say) → 30 Hz by exact
token times → a centred temporal layer, through which the offline teacher sees the future →
an independent two-layer head per unit (units differ in frequency by two orders of magnitude and must not share one).
Shapes: B windows, T frames, G video grids, N tokens of a grid, K audio tokens, C hidden width, D read-out width,
A units.
"""

import torch
from torch import Tensor, nn

PLACE_WIDTH = 24
"""Channels kept of each video token."""


def over_time(x: Tensor) -> Tensor:
    """[B, S, C] with mean 0 and variance 1 over the slots of its window, per channel.

    A face is nearly the same all the time: who it is and how the room is lit dwarf what moves. The offline teacher sees
    the whole window, so it may take that constant away; the student, which may not, never does this.
    """
    return (x - x.mean(dim=1, keepdim=True)) / (x.std(dim=1, keepdim=True, correction=0) + 1e-4)


class ReadOut(nn.Module):
    """[B, G, N, C] and [B, K, C] → log-odds [B, T, A, 2] (probability, activation)."""

    video_weights: Tensor
    audio_weights: Tensor

    def __init__(
        self,
        hidden: int,
        tokens: int,
        units: int,
        video_weights: Tensor,
        audio_weights: Tensor,
        *,
        width: int,
        span: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.register_buffer("video_weights", video_weights, persistent=False)
        self.register_buffer("audio_weights", audio_weights, persistent=False)
        self.narrow = nn.Linear(hidden, PLACE_WIDTH, bias=False)
        self.project = nn.Linear(tokens * PLACE_WIDTH + hidden, width)
        self.temporal = nn.Conv1d(width, width, span, padding=span // 2, groups=width)
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.first = nn.Parameter(torch.randn(units, width, 32) * width**-0.5)
        self.first_bias = nn.Parameter(torch.zeros(units, 32))
        self.second = nn.Parameter(torch.randn(units, 32, 2) * 0.02)
        self.second_bias = nn.Parameter(torch.zeros(units, 2))

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        """See the class."""
        seen = torch.einsum("tg,bgc->btc", self.video_weights, over_time(self.narrow(video).flatten(2)))
        heard = torch.einsum("tk,bkc->btc", self.audio_weights, over_time(audio))
        x = torch.relu(self.project(torch.cat([seen, heard], dim=-1)))
        around = self.temporal(x.transpose(1, 2)).transpose(1, 2)
        x = self.drop(self.norm(x + self.mix(torch.relu(around))))
        inner = torch.relu(torch.einsum("btd,ade->btae", x, self.first) + self.first_bias)
        return torch.einsum("btae,aeo->btao", inner, self.second) + self.second_bias

    @torch.no_grad()
    def start_at(self, prob_mean: Tensor, act_rate: Tensor) -> None:
        """Biases at the base rates [A]: tuning starts at the mean predictor."""
        rates = torch.stack([prob_mean, act_rate], dim=-1).clamp(1e-3, 1 - 1e-3)
        self.second_bias.copy_(torch.logit(rates))
