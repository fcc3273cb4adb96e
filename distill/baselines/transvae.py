"""Trans-VAE, the REACT challenge's own listener, offline and online: a peer to train and to time.

Written anew from a description of the baseline's layers; no code was copied. Parameters come out as those of the
published ones were measured: online 1 670 835, offline 1 315 891, of which 664 288 in the video encoder.

    frames ─ 3-D convolutions ─┐
    78 cepstra ─ linear ───────┴─ linear ─ behaviour ─┐
    past reactions (58 + 25), one window late ────────┴─ linear ─ VAE encoder ─ one sample of 128 numbers
    zeros + positions ─ decoder ─ decoder ─ reaction ─ [online: decoder with the past ─ LSTM] ─ 58 3DMM, 25 attributes

All that a window's answer knows of the speaker is that one sample. The offline count is met only if the layer that
joins behaviour and past is there as well; it is fed zeros for the past. Paddings and biases were inferred from sizes
and counts; the cepstra are brought to mean 0 and deviation 1 by two constants that are no parameters.

Where the published code goes wrong, and what is done here: its forward looks for a GPU (here: any device); its last
`T mod window` frames stay zero (`rollout`: the last frame is repeated, so every frame is answered); its evaluation
draws without a seed (the noise is an argument); it returns a tuple where its evaluation wants a list (a named result).
Its look-ahead is stated in `settings.Timing`.

Shapes: B batch, T frames of context, K frames of a window, D = 128, A attributes.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.baselines.settings import N_FACE
from distill.baselines.vision import WIDTH, VideoEncoder

HEADS, FFN = 4, 256
CEPSTRA, ATTRIBUTES, WINDOW_FRAMES = 78, 25, 8


class Reaction(NamedTuple):
    """The answer for some frames, 3DMM [B, K, 58] and attributes [B, K, A], and whence it was drawn, both [B, D]."""

    face: Tensor
    attributes: Tensor
    mean: Tensor
    log_variance: Tensor


def sines(frames: int, width: int) -> Tensor:
    """Sine and cosine of a frame's number (Vaswani et al., 2017), [T, D], periods from 6 frames to 60 000."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(frames)[:, None] * rates
    return torch.stack([torch.sin(angle), torch.cos(angle)], dim=2).flatten(1)


def causal_bias(frames: int) -> Tensor:
    """Attention bias [HEADS, T, T]: a slope per head over the distance, later frames shut out."""
    age = torch.arange(frames)[:, None] - torch.arange(frames)[None, :]
    slopes = torch.tensor([2 ** (-8.0 * (i + 1) / HEADS) for i in range(HEADS)])[:, None, None]
    return (-slopes * age.clamp(min=0)).masked_fill(age < 0, float("-inf"))


def _decoder() -> nn.TransformerDecoderLayer:
    return nn.TransformerDecoderLayer(WIDTH, HEADS, FFN, batch_first=True)


class Continuation(nn.Module):
    """Online only: the window's reaction is read once more together with the faces before it."""

    def __init__(self) -> None:
        super().__init__()
        self.past_in, self.reaction_in = nn.Linear(N_FACE, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.decoder = _decoder()
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, reaction: Tensor, face: Tensor) -> Tensor:
        """Reaction [B, K, D] and faces [B, T-K, 58] before it → [B, K, D]; without any face before, one of zeros."""
        before = self.past_in(face if face.shape[1] else face.new_zeros(len(face), 1, N_FACE))
        whole = torch.cat([before[:, before.shape[1] - face.shape[1] :], self.reaction_in(reaction)], dim=1)
        bias = causal_bias(whole.shape[1]).to(whole).repeat(len(whole), 1, 1)
        moved = self.decoder(whole, whole, tgt_mask=bias)[:, -reaction.shape[1] :]
        start = before[:, -1:].transpose(0, 1).contiguous()
        return self.lstm(moved, (start, start))[0]


class TransVae(nn.Module):
    """`encode` frames, then `react` to what was encoded."""

    cepstra_mean: Tensor
    cepstra_scale: Tensor

    def __init__(
        self, *, online: bool = True, attributes: int = ATTRIBUTES, window_frames: int = WINDOW_FRAMES
    ) -> None:
        super().__init__()
        self.n_attributes, self.window_frames = attributes, window_frames
        self.video = VideoEncoder()
        self.audio, self.join = nn.Linear(CEPSTRA, WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.fuse = nn.Linear(WIDTH + N_FACE + attributes, WIDTH)
        self.to_code, self.tokens = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.randn(2, WIDTH))
        self.encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, FFN, batch_first=True)
        self.from_code, self.refine = _decoder(), _decoder()
        self.continuation = Continuation() if online else None
        self.face_out = nn.Linear(WIDTH, N_FACE)
        self.attributes_out = nn.Sequential(nn.Linear(WIDTH + N_FACE, WIDTH), nn.Linear(WIDTH, attributes))
        self.register_buffer("cepstra_mean", torch.zeros(CEPSTRA))
        self.register_buffer("cepstra_scale", torch.ones(CEPSTRA))

    @property
    def online(self) -> bool:
        """Whether it answers windows, with its own past in mind, or whole clips."""
        return self.continuation is not None

    def encode(self, video: Tensor, cepstra: Tensor) -> Tensor:
        """Frames [B, 3, T, h, w] and cepstra [B, T, 78] → the speaker's behaviour [B, T, D]; each knows all frames."""
        return self.joined(self.video(video), cepstra)

    def joined(self, seen: Tensor, cepstra: Tensor) -> Tensor:
        """Video features [B, T, D] and cepstra [B, T, 78] → the speaker's behaviour [B, T, D]."""
        heard = self.audio((cepstra - self.cepstra_mean) / self.cepstra_scale)
        return self.join(torch.cat([seen, heard], dim=2))

    def react(self, behaviour: Tensor, face: Tensor, attributes: Tensor, noise: Tensor | None = None) -> Reaction:
        """Answer the last K frames of behaviour [B, T, D], given reactions before them, [B, T-K, 58] and [B, T-K, A].

        Online K is the window; offline all T frames are answered, and the past is empty. `noise` [B, D] chooses the
        sample: zeros give the distribution's mean, None draws.
        """
        batch, frames = behaviour.shape[:2]
        answered = self.window_frames if self.online else frames
        if frames - face.shape[1] != answered:
            raise ValueError(
                f"wanted reactions to all but the last {answered} of {frames} frames, got {face.shape[1]}; "
                "hand in zeros for those not made yet"
            )
        late = behaviour.new_zeros(batch, answered, N_FACE + self.n_attributes)
        past = torch.cat([late, torch.cat([face, attributes], dim=2)], dim=1)
        mean, log_variance = self._distribution(self.fuse(torch.cat([behaviour, past], dim=2)))
        noise = torch.randn_like(mean) if noise is None else noise
        reaction = self._decode(mean + torch.exp(0.5 * log_variance) * noise, answered)
        moved = reaction if self.continuation is None else self.continuation(reaction, face)
        face_now = self.face_out(moved)
        return Reaction(face_now, self.attributes_out(torch.cat([reaction, face_now], dim=2)), mean, log_variance)

    def _distribution(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D] → mean and log-variance [B, D] that the two tokens gather."""
        tokens = self.tokens.expand(fused.shape[0], -1, -1)
        mean, log_variance = self.encoder(torch.cat([tokens, self.to_code(fused)], dim=1))[:, :2].unbind(1)
        return mean, log_variance

    def _decode(self, sample: Tensor, frames: int) -> Tensor:
        """One sample [B, D] → a reaction [B, frames, D]."""
        bias = causal_bias(frames).to(sample).repeat(len(sample), 1, 1)
        queries = sines(frames, WIDTH).to(sample).expand(len(sample), -1, -1)
        reaction = self.from_code(queries, sample[:, None], tgt_mask=bias)
        return self.refine(reaction, reaction, tgt_mask=bias)
