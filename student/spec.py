"""The student's contract: what it watches, hears and predicts. Travels in every checkpoint and engine.

No torch here: the loop reads it too.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dyad.action_units import SEED17
from dyad.clock import FPS, SAMPLE_RATE_HZ
from dyad.config import as_dict, from_dict
from dyad.provenance import sha256_bytes

FRONT_FIELDS = ("crop_px", "fps", "sample_rate_hz")
"""Fields that change what the front end produces; decoded sessions are cached by them."""
FRONT_VERSION = 4
"""Raise it when face.py or frontend.py make other bytes of the same media: cached sessions are then made again."""
FUSIONS = ("concat", "cross_attention", "transformer")


@dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """Everything that fixes the student's shapes and meaning."""

    au_names: tuple[str, ...] = SEED17.units
    """Action units predicted, in column order."""
    fps: int = FPS
    """Frames per second of picture and prediction."""
    sample_rate_hz: int = SAMPLE_RATE_HZ
    """Samples per second of the sound."""
    crop_px: int = 64
    """Side of the square face crop, pixels."""
    audio_window_samples: int = 800
    """Samples handed in at each frame, ending with the frame: four log-mel columns of 400 samples."""
    horizons: tuple[int, ...] = tuple(range(9))
    """Look-ahead of each prediction, frames: the plan for the next 267 ms."""
    backbone: str = "mobilenetv4_conv_small_050"
    """Any timm model with features at `backbone_stride`."""
    backbone_stride: int = 16
    """Input pixels per feature cell."""
    visual_channels: int = 32
    """Channels kept of every feature cell."""
    d_model: int = 128
    """Width of the temporal trunk."""
    layers: int = 4
    """Convolution + attention layers; the receptive field is about layers x window_frames."""
    heads: int = 4
    """Attention heads."""
    window_frames: int = 64
    """Frames that each layer's attention sees, the present one included."""
    ffn: int = 256
    """Width of the feed-forward layers."""
    conv_kernel: int = 5
    """Frames that each causal convolution sees."""
    mel_bins: int = 64
    """Log-mel bands."""
    fusion: Literal["concat", "cross_attention", "transformer"] = "concat"
    """How sight and hearing meet."""
    dropout: float = 0.1
    """Dropout rate while training."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        sizes = ("crop_px", "backbone_stride", "visual_channels", "d_model", "heads", "ffn", "mel_bins")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not self.au_names or len(set(self.au_names)) != len(self.au_names):
            raise ValueError(f"au_names must name one unit or more, each once; got {self.au_names}")
        if self.fusion not in FUSIONS:
            raise ValueError(f"unknown fusion {self.fusion!r}; known: {', '.join(FUSIONS)}")
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}; change one")
        if self.crop_px % self.backbone_stride:
            raise ValueError(f"crop_px {self.crop_px} is not a multiple of backbone_stride {self.backbone_stride}")
        if not self.horizons or min(self.horizons) < 0 or list(self.horizons) != sorted(set(self.horizons)):
            raise ValueError(f"horizons must rise from 0 or more, without repeats; got {self.horizons}")
        if self.fps != FPS or self.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"the student runs at {FPS} Hz and {SAMPLE_RATE_HZ} Hz sound; resample the media instead")
        if self.audio_window_samples != 800:
            raise ValueError("audio_window_samples is fixed at 800: four log-mel columns of 400 samples, 133 apart")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.window_frames < 2 or self.layers < 1 or self.conv_kernel < 2:
            raise ValueError("window_frames ≥ 2, layers ≥ 1 and conv_kernel ≥ 2 are needed")

    @property
    def receptive_field_frames(self) -> int:
        """Frames of the past that can reach a prediction, the present one included."""
        per_layer = (self.window_frames - 1) + (self.conv_kernel - 1)
        return 1 + self.layers * per_layer + (self.conv_kernel - 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return as_dict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], *, where: str = "spec") -> "StudentSpec":
        """Read plain data; an unknown key is refused with the nearest known one."""
        return from_dict(cls, dict(content), where=where)

    def hash(self) -> str:
        """Short hash of all fields."""
        return sha256_bytes(repr(sorted(self.to_dict().items())).encode())[:16]

    def front_hash(self) -> str:
        """Short hash of what the front end's bytes depend on."""
        content = [FRONT_VERSION, *((f, getattr(self, f)) for f in FRONT_FIELDS)]
        return sha256_bytes(repr(content).encode())[:12]

    def replace(self, **changes: Any) -> "StudentSpec":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
