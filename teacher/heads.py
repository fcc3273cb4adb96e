"""From hidden states at media tokens to action units at 30 Hz.

In two parts, so that a serving engine needs only the first. *Per token*: a narrow view of each media token's hidden
state, one matrix for pictures and one for sound. *Over time*: media slots, the tokens of a picture kept apart (where on
the face they lie is most of what they say) → 30 Hz by exact token times → a centred temporal layer, through which the
offline teacher sees the future → an independent two-layer head per unit (units differ in frequency by two orders of
magnitude and must not share one), which answers for its own frame and for those that follow it: every frame is then
seen from several anchors, and where they disagree the teacher is unsure.
Shapes: B windows, T frames, H horizons, M media tokens of a window, C hidden width, P token width, D read-out width,
A units, K sub-networks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teacher.layout import Layout

HEAD_WIDTH = 32


def over_time(x: Tensor) -> Tensor:
    """[B, S, C] with mean 0 and variance 1 over the slots of its window, per channel.

    A face is nearly the same all the time: who it is and how the room is lit dwarf what moves. The offline teacher sees
    the whole window, so it may take that constant away; the student, which may not, never does this.
    """
    return (x - x.mean(dim=1, keepdim=True)) / (x.std(dim=1, keepdim=True, correction=0) + 1e-4)


class TokenReadOut(nn.Module):
    """Hidden states [..., M, C] of media tokens → their narrow views [..., M, P], float32."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.video = nn.Linear(hidden, width, bias=False)
        self.audio = nn.Linear(hidden, width, bias=False)

    def forward(self, states: Tensor, is_video: Tensor) -> Tensor:
        """Each token through the matrix of its own kind; `is_video` [M] bool."""
        states = states.to(self.video.weight.dtype)
        out = states.new_empty(*states.shape[:-1], self.video.out_features)
        out[..., is_video, :] = self.video(states[..., is_video, :])
        out[..., ~is_video, :] = self.audio(states[..., ~is_video, :])
        return out


class ReadOut(nn.Module):
    """Hidden states at media tokens → log-odds [B, T, H, A, 2] (probability, activation) of frame t + h."""

    def __init__(
        self,
        hidden: int,
        tokens_per_grid: int,
        *,
        units: int,
        horizons: int,
        token_width: int,
        width: int,
        span: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.units, self.horizons, self.dropout = units, horizons, dropout
        self.tokens = TokenReadOut(hidden, token_width)
        self.project = nn.Linear((tokens_per_grid + 1) * token_width, width)
        self.temporal = nn.Conv1d(width, width, span, padding=span // 2, groups=width)
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.first = nn.Parameter(torch.randn(units, width, HEAD_WIDTH) * width**-0.5)
        self.first_bias = nn.Parameter(torch.zeros(units, HEAD_WIDTH))
        self.second = nn.Parameter(torch.randn(units, HEAD_WIDTH, 2 * horizons) * 0.02)
        self.second_bias = nn.Parameter(torch.zeros(units, 2 * horizons))

    def trunk(self, features: Tensor, layout: Layout) -> Tensor:
        """Narrow views [B, M, P] in prompt order → what the heads read, [B, T, D]."""
        video = features[:, layout.video_rows].reshape(len(features), layout.grids, -1)
        audio = features[:, layout.audio_rows]
        seen = torch.einsum("tg,bgc->btc", layout.video_weights, over_time(video))
        heard = torch.einsum("tk,bkc->btc", layout.audio_weights, over_time(audio))
        x = torch.relu(self.project(torch.cat([seen, heard], dim=-1)))
        around = self.temporal(x.transpose(1, 2)).transpose(1, 2)
        return self.norm(x + self.mix(torch.relu(around)))

    def heads(self, x: Tensor) -> Tensor:
        """[B, T, D] → log-odds [B, T, H, A, 2]."""
        inner = torch.relu(torch.einsum("btd,ade->btae", x, self.first) + self.first_bias)
        out = torch.einsum("btae,aeo->btao", inner, self.second) + self.second_bias
        return out.unflatten(-1, (self.horizons, 2)).transpose(2, 3)

    def forward(self, features: Tensor, layout: Layout) -> Tensor:
        """See the class; in training whole channels of a window are dropped, as the sub-networks lack them."""
        x = self.trunk(features, layout)
        x = F.dropout1d(x.transpose(1, 2), self.dropout, self.training).transpose(1, 2)
        return self.heads(x)

    def sub_networks(self, count: int) -> Tensor:
        """Masks [K, D] of `count` fixed sub-networks, each lacking a share `dropout` of the channels.

        Dropout as a deterministic ensemble: the same members for every window of every session, so that labels do not
        depend on the order or the machine on which windows are read.
        """
        keep = torch.rand(count, self.norm.normalized_shape[0], generator=torch.Generator().manual_seed(0))
        return (keep >= self.dropout).float() / (1 - self.dropout)

    @torch.no_grad()
    def start_at(self, prob_mean: Tensor, act_rate: Tensor) -> None:
        """Biases at the base rates [A]: tuning starts at the mean predictor."""
        rates = torch.stack([prob_mean, act_rate], dim=-1).clamp(1e-3, 1 - 1e-3)
        self.second_bias.copy_(torch.logit(rates).repeat(1, self.horizons))
