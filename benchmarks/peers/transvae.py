"""The peer of the REACT challenge: Trans-VAE, online, 224 px, windows of 8 frames with 64 frames of context.

Written anew from a description of the baseline's layers; no code was copied. Parameters come out as published ones
were measured: 1 670 835 in all, 664 288 of them in the video encoder. A window goes

    64 frames ─ 3-D convolutions ─┐
    64 x 78 cepstra ─ linear ─────┴─ linear ─ behaviour ─┐
    past reactions (58 + 25), one window late ───────────┴─ linear ─ VAE encoder ─ one sample of 128 numbers
    zeros + positions ─ decoder ─ decoder ─ reaction of 8 frames ─ decoder with the past ─ LSTM ─ 58 3DMM, 25 attributes

as_published      every window encodes its whole context of 64 frames again
new_frames_only   only the 8 new ones; what was made of the 56 before is kept. Not the same numbers: InstanceNorm3d
                  takes its statistics over time as well, so a kept feature knows nothing of the frames after it

Where it may differ from the published one: paddings and biases were inferred from sizes and counts; the context is
64 frames, not all that went before (the published cost grows without end); cepstra lie ready, their extraction is not
timed. Multiply-adds of a window: 18.0 G as published, 2.3 G with the new frames alone.

Shapes: B batch, T context frames, K frames of a window, D = 128.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.peers import Unit, multiply_adds, parameters
from benchmarks.peers.positions import sines

Mode = Literal["as_published", "new_frames_only"]
MODES: tuple[Mode, ...] = ("as_published", "new_frames_only")
WIDTH, HEADS, FFN = 128, 4, 256
CEPSTRA, FACE, ATTRIBUTES = 78, 58, 25
WINDOW_FRAMES, CONTEXT_FRAMES, CROP_PX = 8, 64, 224


def _block(inside: int, outside: int, kernel: int, stride: int) -> nn.Sequential:
    """Convolution within each frame, normalised over the clip."""
    conv = nn.Conv3d(
        inside, outside, (1, kernel, kernel), (1, stride, stride), padding=(0, kernel // 2, kernel // 2), bias=False
    )
    return nn.Sequential(conv, nn.InstanceNorm3d(outside), nn.ReLU())


class VideoEncoder(nn.Module):
    """Frames [B, 3, T, h, w] in [-1, 1] → [B, T, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(_block(3, 32, 7, 2), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)))
        self.second = nn.Sequential(_block(32, WIDTH, 7, 2), _block(WIDTH, WIDTH, 3, 2))
        self.residual = _block(WIDTH, WIDTH, 3, 1)
        self.last = _block(WIDTH, WIDTH, 3, 2)
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, video: Tensor) -> Tensor:
        """Clip-wide normalisation: every frame's features depend on all frames handed in."""
        x = self.second(self.first(video))
        x = self.last(x + self.residual(x))
        return self.project(x.mean(dim=(3, 4)).transpose(1, 2))


def causal_bias(frames: int) -> Tensor:
    """Attention bias [HEADS, T, T]: a slope per head over the distance, later frames shut out."""
    age = torch.arange(frames)[:, None] - torch.arange(frames)[None, :]
    slopes = torch.tensor([2 ** (-8.0 * (i + 1) / HEADS) for i in range(HEADS)])[:, None, None]
    return (-slopes * age.clamp(min=0)).masked_fill(age < 0, float("-inf"))


def _decoder() -> nn.TransformerDecoderLayer:
    return nn.TransformerDecoderLayer(WIDTH, HEADS, FFN, batch_first=True)


class TransVae(nn.Module):
    """The online model: `encode` frames, then `react` to what was encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.video = VideoEncoder()
        self.audio, self.join = nn.Linear(CEPSTRA, WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.fuse = nn.Linear(WIDTH + FACE + ATTRIBUTES, WIDTH)
        self.to_code, self.tokens = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.randn(2, WIDTH))
        self.encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, FFN, batch_first=True)
        self.from_code, self.refine, self.continue_past = _decoder(), _decoder(), _decoder()
        self.past_in, self.reaction_in = nn.Linear(FACE, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.face_out = nn.Linear(WIDTH, FACE)
        self.attributes_out = nn.Sequential(nn.Linear(WIDTH + FACE, WIDTH), nn.Linear(WIDTH, ATTRIBUTES))

    def encode(self, video: Tensor, cepstra: Tensor) -> Tensor:
        """Frames [B, 3, T, h, w] and cepstra [B, T, 78] → the speaker's behaviour [B, T, D]."""
        return self.join(torch.cat([self.video(video), self.audio(cepstra)], dim=2))

    def react(self, behaviour: Tensor, face: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
        """Behaviour [B, T, D] and the reactions before this window, [B, T-K, 58] and [B, T-K, 25].

        Returns 3DMM [B, K, 58] and attributes [B, K, 25] of the window's K = 8 frames. Draws one sample.
        """
        batch, frames = behaviour.shape[:2]
        if frames - face.shape[1] != WINDOW_FRAMES:
            raise ValueError(
                f"wanted reactions to all but the last {WINDOW_FRAMES} of {frames} frames, got {face.shape[1]}; "
                "hand in zeros for those not made yet"
            )
        late = behaviour.new_zeros(batch, WINDOW_FRAMES, FACE + ATTRIBUTES)
        past = torch.cat([late, torch.cat([face, attributes], dim=2)], dim=1)
        sample = self._sample(self.fuse(torch.cat([behaviour, past], dim=2)))
        short, long = (causal_bias(n).repeat(batch, 1, 1) for n in (WINDOW_FRAMES, frames))
        queries = sines(WINDOW_FRAMES, WIDTH).expand(batch, -1, -1)
        reaction = self.from_code(queries, sample[:, None], tgt_mask=short)
        reaction = self.refine(reaction, reaction, tgt_mask=short)
        before = self.past_in(face)
        whole = torch.cat([before, self.reaction_in(reaction)], dim=1)
        moved = self.continue_past(whole, whole, tgt_mask=long)[:, -WINDOW_FRAMES:]
        start = before[:, -1:].transpose(0, 1).contiguous()
        face_now = self.face_out(self.lstm(moved, (start, start))[0])
        return face_now, self.attributes_out(torch.cat([reaction, face_now], dim=2))

    def _sample(self, fused: Tensor) -> Tensor:
        """[B, T, D] → one draw [B, D] from the normal distribution that the two tokens gather."""
        tokens = self.tokens.expand(fused.shape[0], -1, -1)
        mean, log_variance = self.encoder(torch.cat([tokens, self.to_code(fused)], dim=1))[:, :2].unbind(1)
        return mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)


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
        face, attributes = self.model.react(behaviour, self.face, self.attributes)
        self.face = torch.cat([self.face, face], dim=1)[:, WINDOW_FRAMES:]
        self.attributes = torch.cat([self.attributes, attributes], dim=1)[:, WINDOW_FRAMES:]


def make(mode: Mode = "as_published") -> Unit:
    """One window of 8 frames."""
    torch.manual_seed(0)
    stream = TransVaeStream(TransVae(), mode)
    facts = {"parameters": parameters(stream.model), "multiply_adds": multiply_adds(stream.window)}
    return Unit(work=stream.window, frames=WINDOW_FRAMES, facts=facts)
