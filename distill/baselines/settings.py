"""What `python -m distill.train --baseline transvae-online` may choose, and what its answers may know. No torch here.

An answer comes window by window: the last frame of a window must be seen before its first one is answered. A model can
be trained to answer for `ahead_frames` later, which buys that time back, as any live use has to.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dyad.action_units import REACT_ATTRIBUTES, SEED17

if TYPE_CHECKING:
    from distill.train import Config

BASELINES = ("transvae-online", "transvae-offline")
N_FACE, N_EXPRESSION = 58, 52
"""3DMM coefficients: 52 of expression, then 3 of rotation and 3 of translation."""
LAST_HORIZON = 8
"""The student's furthest look-ahead, frames; a baseline's predictions go no further."""
STUDENT_ONLY = ("extra_share", "student", "qat_eyes", "qat_steps", "qat_learning_rate", "stratify", "ema", "loss",
                "precision", "augment.gain_db", "augment.noise_db", "augment.stretch", "augment.drop_sight",
                "augment.drop_sound")  # fmt: skip
"""Settings of `distill.train` that no baseline has a use for."""
ONLINE_ONLY = ("transvae.window_frames", "transvae.encode", "transvae.context_frames")
"""Those that mean nothing to a model that answers whole clips."""
OFFLINE_ONLY = ("transvae.normalise",)
"""Those that mean nothing to a model that may know no later frame."""


@dataclass(frozen=True, kw_only=True)
class TransVaeSettings:
    """Trans-VAE's own dials; the defaults are the published ones, save where a processor could not pay for them."""

    window_frames: int = 8
    """Frames that the online model answers at once: 8 (published: 16 in training, 8 in validation)."""
    encode: Literal["running", "history"] = "running"
    """history: every window encodes all that went before again, as published, at a cost that grows with the square of
    the clip; running: each frame is encoded once, normalised by all frames up to the end of its window."""
    context_frames: int = 0
    """Frames of the past, the window included, whose features reach an answer; 0 takes all, as published. The model
    cannot tell their order: a second or so is all that it can use."""
    normalise: Literal["clip", "session"] = "clip"
    """Over which frames the offline model's eyes take their statistics. clip: those handed in, as published (there 10 s
    in training, 30 s in evaluation); session: all, for eyes that stay as they are. Clips of a few seconds need it: the
    speaker's level, all that an offline answer can follow, is gone with their mean."""
    ahead_frames: int = 0
    """Frames after what is seen that the answers are for: 0 as published, 11 for a live horizon of 4."""
    crop_px: int = 64
    """Side of the face crop (published: 224); 64 is about twelve times faster."""
    attributes: Literal["react", "all"] = "all"
    """react: the challenge's 25; all: these and the three units that only the product's datasets have."""
    kl: float = 1e-5
    """Weight of the divergence from a standard normal distribution."""
    diversity: float = 10.0
    """Weight of the term that drives two answers to one speaker apart; 0 saves the second answer."""
    samples: int = 10
    """Sampled answers written per session."""
    challenge: Path | None = None
    """Raw REACT folder that the dataset was made of: adds what a dataset has no place for (valence, arousal,
    expressions, AU24, 3DMM) to what is learned."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.window_frames < 2 or self.ahead_frames < 0 or self.samples < 1:
            raise ValueError("window_frames ≥ 2, ahead_frames ≥ 0 and samples ≥ 1 are needed")
        if self.context_frames and self.context_frames < self.window_frames:
            raise ValueError(
                f"context_frames {self.context_frames} is less than a window of {self.window_frames}; 0 takes all"
            )
        if self.crop_px % 16 or self.crop_px < 32:
            raise ValueError(f"crop_px must be a multiple of 16 from 32 on, got {self.crop_px}")

    @property
    def names(self) -> tuple[str, ...]:
        """Attributes that the model gives, in order; the challenge's 25 come first."""
        more = () if self.attributes == "react" else tuple(u for u in SEED17.units if u not in REACT_ATTRIBUTES)
        return REACT_ATTRIBUTES + more


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When an answer can be had: once `block_frames` were seen, the first of them too, for `ahead_frames` later."""

    block_frames: int
    ahead_frames: int

    @property
    def look_ahead_frames(self) -> int:
        """How many frames after frame t the stored value for frame t may use; 0 is causal."""
        return max(self.block_frames - 1 - self.ahead_frames, 0)

    @property
    def horizons(self) -> tuple[int, ...]:
        """Look-aheads that can be answered without any later frame; (0,) alone where not even that is possible."""
        return tuple(range(min(max(self.ahead_frames - self.block_frames + 1, 0), LAST_HORIZON) + 1))


def timing(baseline: str, settings: TransVaeSettings, clip_frames: int, session_frames: int) -> Timing:
    """The online model answers windows; offline an answer knows its clip, or the session that it was normalised with.

    `session_frames` of the longest session: no answer knows more.
    """
    offline_block = session_frames if settings.normalise == "session" else clip_frames
    block = settings.window_frames if baseline == "transvae-online" else offline_block
    return Timing(block_frames=block, ahead_frames=settings.ahead_frames)


def unused(config: "Config") -> list[str]:
    """Names of settings that were changed but would have no effect on this run."""
    if config.baseline is None:
        return _changed(config, ["transvae"])
    return _changed(config, [*STUDENT_ONLY, *(OFFLINE_ONLY if config.baseline == "transvae-online" else ONLINE_ONLY)])


def _changed(config: Any, names: list[str]) -> list[str]:
    """Of dotted names, or whole groups of them, those that do not hold their default."""
    changed: list[str] = []
    for name in names:
        group, _, rest = name.partition(".")
        value, default = getattr(config, group), _default(config, group)
        if dataclasses.is_dataclass(value):
            inner = [rest] if rest else [f.name for f in dataclasses.fields(value)]
            changed += [f"{group}.{n}" for n in inner if getattr(value, n) != getattr(default, n)]
        elif value != default:
            changed.append(group)
    return changed


def _default(config: Any, name: str) -> Any:
    field = next(f for f in dataclasses.fields(config) if f.name == name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
