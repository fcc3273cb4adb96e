"""The peer of seed 002: ResNet18 per frame, a two-way GRU over the sound, attention across the senses.

    frame_u8 ─ ResNet18 ─ 256 ──────────── visual sequence ─┐
                                                            ├─ attention both ways ─ three layers ─ logits
    audio ─ log-mel ─ 3 convolutions ─ GRU ⇄ GRU ─ heard ───┘

A two-way GRU reads its sequence backwards too, so that it cannot stream: at every frame the last 64 frames run through
it and through the attention again. What looks at one frame alone (ResNet, convolutions) is computed once and kept.

The signature is the student's. A chunk of T frames is T overlapping windows, cut by `unfold`, each of which ends with
the frame that it predicts: the two-way GRU sees nothing later, and a step is exactly a chunk of one. Training on all T
windows costs 64 times the GRU work; `stride` = s predicts only every s-th frame while training (see `predicted`).

Where it differs from the seed: the width is the spec's (the seed's 256 is that of configs/student/small.yaml); the
classes are action units at all horizons; a learned embedding of a frame's place, sines at first, is added to both
sequences, since the seed's visual one has no order otherwise; convolutions see the four columns of one frame, so that
they can be kept.

While the eyes train, their BatchNorm shares statistics among the frames of a batch; nothing after them does. Its
running statistics are buffers: an average of the parameters must copy them, unless the eyes are frozen by then.

Shapes: B batch, T frames, P predicted frames, W window, D width, N = batch x frames, H horizons, A units.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.peers import Unit, multiply_adds, parameters
from benchmarks.peers.positions import sines
from student.audio import LogMel
from student.heads import Heads
from student.spec import StudentSpec

HEADS = 8


class State(NamedTuple):
    """What was seen and heard, [B, W-1, D] each, and which slots hold a frame, [B, W-1]."""

    seen: Tensor
    heard: Tensor
    filled: Tensor


class Eyes(nn.Module):
    """ResNet18 and a projection, one frame at a time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        import timm

        resnet: Any = timm.create_model("resnet18", pretrained=False, num_classes=0)
        self.backbone = resnet.to(memory_format=torch.channels_last)  # pixels come so, and it is a sixth faster
        self.project = nn.Linear(512, width)

    def forward(self, frame_u8: Tensor) -> Tensor:
        """Pixels [N, h, w, 3] uint8 → [N, D]."""
        x = (frame_u8.to(torch.float32) - 128.0) / 128.0
        return self.project(self.backbone(x.permute(0, 3, 1, 2)))

    def calibrate(self, frame_u8: Tensor) -> None:
        """Set the running statistics of BatchNorm from `frame_u8` [N, h, w, 3]; the student's eyes have the same."""
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        was_training = self.training
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            self.train()(frame_u8)
        self.train(was_training)
        for norm in norms:
            norm.momentum = 0.1


class Ears(nn.Module):
    """Four log-mel columns of a frame through three convolutions; the GRU comes later, over the window."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.mel = LogMel(bands)
        self.convs = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=(1, 2), padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.project = nn.Linear(128 * -(-bands // 8), width)

    def forward(self, audio: Tensor) -> Tensor:
        """[N, 800] → [N, D]."""
        columns = self.mel(audio).reshape(audio.shape[0], 1, 4, -1)
        return self.project(self.convs(columns).flatten(1))


class Asking(nn.Module):
    """One query asks a sequence: attention, then feed-forward, each added and normalised."""

    def __init__(self, width: int, ffn: int, dropout: float) -> None:
        super().__init__()
        if width % HEADS:
            raise ValueError(f"resnet_gru attends with {HEADS} heads; d_model {width} is no multiple of it: change it")
        self.attention = nn.MultiheadAttention(width, HEADS, dropout=dropout, batch_first=True)
        self.norm, self.norm_ffn = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ffn, width))

    def forward(self, query: Tensor, sequence: Tensor, empty: Tensor) -> Tensor:
        """[N, D] on [N, W, D]; slots where `empty` [N, W] is true are not seen → [N, D]."""
        found, _ = self.attention(query[:, None], sequence, sequence, key_padding_mask=empty, need_weights=False)
        x = self.norm(query + found[:, 0])
        return self.norm_ffn(x + self.ffn(x))


class ResNetGru(nn.Module):
    """The peer, with the signature of `student.model.Student`."""

    def __init__(self, spec: StudentSpec, stride: int = 1) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f"stride must be 1 or more, got {stride}")
        width = spec.d_model
        self.spec, self.stride = spec, stride
        self.vision, self.audio = Eyes(width), Ears(spec.mel_bins, width)
        self.missing = nn.Parameter(torch.zeros(2, width))  # stands in for sight, for sound
        self.gru = nn.GRU(width, width // 2, 2, batch_first=True, bidirectional=True, dropout=spec.dropout)
        self.age = nn.Parameter(sines(spec.window_frames, width))
        self.sight_asks, self.sound_asks = (Asking(width, spec.ffn, spec.dropout) for _ in range(2))
        self.classify = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Dropout(spec.dropout),
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(spec.dropout),
        )  # fmt: skip
        self.heads = Heads(spec)  # the third layer of the classifier

    @property
    def predicted(self) -> slice:
        """Which frames of a chunk have logits: all, but every `stride`-th alone while training; cut targets by it."""
        return slice(self.stride - 1, None, self.stride) if self.training else slice(None)

    def init_state(self, batch: int) -> State:
        """The state before the first frame."""
        slots, weight = self.spec.window_frames - 1, self.age
        empty = weight.new_zeros(batch, slots, weight.shape[1])
        return State(empty, empty.clone(), weight.new_zeros(batch, slots))

    def visual_features(self, frame_u8: Tensor) -> Tensor:
        """Pixels [B, T, h, w, 3] uint8 → [B, T, D], each frame alone."""
        return self.vision(frame_u8.flatten(0, 1)).reshape(*frame_u8.shape[:2], -1)

    def forward(self, frame_u8: Tensor, audio: Tensor, present: Tensor, state: State) -> tuple[Tensor, State]:
        """As `Student.forward`: logits [B, P, H, A, 2] of the `predicted` frames, and the next state."""
        return self.from_features(self.visual_features(frame_u8), audio, present, state)

    def from_features(self, seen: Tensor, audio: Tensor, present: Tensor, state: State) -> tuple[Tensor, State]:
        """As `forward`, from visual features [B, T, D]."""
        batch, frames, width = seen.shape
        here = present > 0.5
        sight = torch.where(here[..., :1], seen, self.missing[0])
        sound = self.audio(audio.flatten(0, 1)).reshape(batch, frames, width)
        sound = torch.where(here[..., 1:], sound, self.missing[1])
        seen = torch.cat([state.seen, sight], dim=1)
        heard = torch.cat([state.heard, sound], dim=1)
        filled = torch.cat([state.filled, state.filled.new_ones(batch, frames)], dim=1)
        logits = self._answer(self._windows(seen), self._windows(heard), self._windows(filled[..., None])[..., 0] < 0.5)
        after = State(seen[:, frames:], heard[:, frames:], filled[:, frames:])
        return logits.reshape(batch, -1, *self.heads.shape), after

    def _windows(self, x: Tensor) -> Tensor:
        """[B, W-1+T, C] → [B*P, W, C]: the window that ends with each predicted frame."""
        start, step = self.predicted.start or 0, self.predicted.step or 1
        return x[:, start:].unfold(1, self.spec.window_frames, step).flatten(0, 1).transpose(1, 2)

    def _answer(self, seen: Tensor, heard: Tensor, empty: Tensor) -> Tensor:
        """Windows [N, W, D], and which slots are empty → [N, H, A, 2]."""
        spoken, last = self.gru(heard)
        summary = torch.cat([last[-2], last[-1]], dim=1)
        by_sight = self.sight_asks(seen[:, -1], spoken + self.age, empty)
        by_sound = self.sound_asks(summary, seen + self.age, empty)
        return self.heads(self.classify(torch.cat([by_sight, by_sound], dim=1)))


class ResNetGruStream:
    """The peer live: one frame in, one row of probabilities out; keeps the window of features."""

    def __init__(self, model: ResNetGru, column: int = 0) -> None:
        self.model, self.column = model.eval(), column
        self._state = model.init_state(1)

    @torch.no_grad()
    def step(self, frame_u8: Tensor, audio: Tensor) -> Tensor:
        """Crop [h, w, 3] uint8 and sound [800] → probabilities [A] at horizon `spec.horizons[column]`."""
        present = torch.ones(1, 1, 2)
        logits, self._state = self.model(frame_u8[None, None], audio[None, None], present, self._state)
        return torch.sigmoid(logits[0, 0, self.column, :, 0])


def make(spec: StudentSpec, crop_px: int | None = None) -> Unit:
    """One live frame at the spec's crop, or at `crop_px` (the seed's is 224)."""
    torch.manual_seed(0)
    spec = spec.replace(crop_px=crop_px or spec.crop_px)
    stream = ResNetGruStream(ResNetGru(spec))
    frame = torch.randint(0, 256, (spec.crop_px, spec.crop_px, 3), dtype=torch.uint8)
    audio = 0.1 * torch.randn(spec.audio_window_samples)

    def work() -> object:
        return stream.step(frame, audio)

    facts = {"parameters": parameters(stream.model), "multiply_adds": multiply_adds(work)}
    return Unit(work=work, frames=1, facts=facts)
