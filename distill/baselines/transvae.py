"""Trans-VAE, the REACT challenge's own listener, offline and online: a peer to train and to time.

Written anew from a description of the baseline's layers; no code was copied. Parameters come out as those of the
published ones were measured: online 1 670 835, offline 1 315 891, of which 664 288 in the video encoder.

    frames ─ 3-D convolutions ─┐
    78 cepstra ─ linear ───────┴─ linear ─ behaviour ─┐
    [online: reactions (58 + 25) to the same frames] ─┴─ linear ─ VAE encoder ─ one sample of 128 numbers
    zeros + positions ─ decoder ─ decoder ─ reaction ─ [online: decoder with the past ─ LSTM] ─ 58 3DMM, 25 attributes

All that a window's answer knows of the speaker is that one sample, and the encoder is told no positions: it reads a set
of frames. Online the newest can be told from the past by having no reaction yet; offline nothing of the order is left,
so a clip's answer can follow the speaker's level but not when anything happened. Mean and log-variance leave through
one normalisation, which sets both about 0 with a deviation of 1: the noise is as large as the signal, the KL near 0.8
nats for each number whatever its weight, and what the decoder learns is to average the noise out.

As published: the layer that joins behaviour and past is there offline too, unused; the first window, which has no past,
skips the third decoder and the LSTM; masks shut out later frames and no more.
Departures. Cepstra are brought to mean 0 and deviation 1 by two constants that are no parameters. The pool in the
encoder is padded by a pixel, so that crops halve evenly. Any device will do (published: its forward looks for a GPU).
Every frame is answered: `rollout` repeats the last one (published: the last `T mod window` stay zero). The noise is an
argument (published: drawn without a seed, in evaluation too). The result is named (published: a tuple, where its
evaluation wants a list). How training departs stands in `run` and `loss`; the look-ahead in `settings.Timing`.

Shapes: B batch, T frames of context, K frames of a window, D = 128, A attributes.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.baselines.settings import N_FACE
from distill.baselines.vision import WIDTH, VideoEncoder

HEADS, FFN, DROPOUT = 4, 256, 0.1
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


def later(frames: int) -> Tensor:
    """Which frames [T, T] a frame may not attend to: those after it."""
    return torch.ones(frames, frames, dtype=torch.bool).triu(1)


def asked(layer: nn.TransformerEncoderLayer, asking: Tensor, everything: Tensor) -> Tensor:
    """The layer's output for `asking` [B, Q, D] alone, some of `everything` [B, T, D]: nobody reads the others'."""
    heard = layer.self_attn(asking, everything, everything, need_weights=False)[0]
    x = layer.norm1(asking + layer.dropout1(heard))
    return layer.norm2(x + layer.dropout2(layer.linear2(layer.dropout(layer.activation(layer.linear1(x))))))


def _decoder() -> nn.TransformerDecoderLayer:
    return nn.TransformerDecoderLayer(WIDTH, HEADS, FFN, DROPOUT, batch_first=True)


class Continuation(nn.Module):
    """Online only: the window's reaction is read once more together with the faces before it."""

    def __init__(self) -> None:
        super().__init__()
        self.past_in, self.reaction_in = nn.Linear(N_FACE, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.decoder = _decoder()
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, reaction: Tensor, face: Tensor) -> Tensor:
        """Reaction [B, K, D] and faces [B, T-K, 58] before it → [B, K, D]; the first window, with none, as it is."""
        if not face.shape[1]:
            return reaction
        before = self.past_in(face)
        whole = torch.cat([before, self.reaction_in(reaction)], dim=1)
        mask = later(whole.shape[1]).to(whole.device)
        moved = self.decoder(whole, whole, tgt_mask=mask)[:, -reaction.shape[1] :]
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
        self.encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, FFN, DROPOUT, batch_first=True)
        self.from_code, self.refine, self.blur = _decoder(), _decoder(), nn.Dropout(DROPOUT)
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
        frames = behaviour.shape[1]
        answered = self.window_frames if self.online else frames
        if frames - face.shape[1] != answered:
            raise ValueError(
                f"wanted reactions to all but the last {answered} of {frames} frames, got {face.shape[1]}; "
                "hand in zeros for those not made yet"
            )
        mean, log_variance = self._distribution(self._fused(behaviour, face, attributes))
        noise = torch.randn_like(mean) if noise is None else noise
        reaction = self._decode(mean + torch.exp(0.5 * log_variance) * noise, answered)
        moved = reaction if self.continuation is None else self.continuation(reaction, face)
        face_now = self.face_out(moved)
        return Reaction(face_now, self.attributes_out(torch.cat([reaction, face_now], dim=2)), mean, log_variance)

    def _fused(self, behaviour: Tensor, face: Tensor, attributes: Tensor) -> Tensor:
        """Behaviour beside the reaction to the same frame, zeros where it is still to be made: [B, T, D]."""
        if not self.online:
            return behaviour
        made = torch.cat([face, attributes], dim=2)
        none = made.new_zeros(len(made), self.window_frames, made.shape[2])
        return self.fuse(torch.cat([behaviour, torch.cat([made, none], dim=1)], dim=2))

    def _distribution(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D] → mean and log-variance [B, D] that the two tokens gather."""
        tokens = self.tokens.expand(fused.shape[0], -1, -1)
        everything = torch.cat([tokens, self.to_code(fused)], dim=1)
        mean, log_variance = asked(self.encoder, everything[:, :2], everything).unbind(1)
        return mean, log_variance

    def _decode(self, sample: Tensor, frames: int) -> Tensor:
        """One sample [B, D] → a reaction [B, frames, D]."""
        mask = later(frames).to(sample.device)
        queries = self.blur(sines(frames, WIDTH).to(sample).expand(len(sample), -1, -1))
        reaction = self.from_code(queries, sample[:, None], tgt_mask=mask)
        return self.refine(reaction, reaction, tgt_mask=mask)
