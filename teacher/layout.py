"""Where the media tokens of a window stand in its prompt, and which moment each stands for.

The task prompt comes first, then the media in the model's own interleaved form, so that every media token knows the
task; every window of one length has the same tokens.
Shapes: L tokens, M media tokens among them, T frames, G video grids, K audio tokens.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teacher import timeline
from teacher.prompt import prompt_with_media
from teacher.window_spec import WindowSpec


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One window length's tokens and times."""

    ids: Tensor
    """Token ids [L]."""
    media_at: Tensor
    """Rows of the media tokens among all [M], in prompt order."""
    is_video: Tensor
    """Which of the media tokens are of pictures [M]; the others are of sound."""
    video_rows: Tensor
    """Rows of picture tokens among the media tokens [G · tokens per grid]."""
    audio_rows: Tensor
    """Rows of sound tokens among the media tokens [K]."""
    video_weights: Tensor
    """30 Hz frames from grids [T, G]."""
    audio_weights: Tensor
    """30 Hz frames from sound tokens [T, K]."""

    @property
    def grids(self) -> int:
        """Temporal grids of pictures."""
        return self.video_weights.shape[1]

    @property
    def prefix(self) -> int:
        """Tokens before the first media token: the same in every window of any length."""
        return int(self.media_at[0])

    def to(self, device: torch.device) -> "Layout":
        """The same on another device."""
        return Layout(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def layout_of(processor: Any, spec: WindowSpec, prompt: str, *, video_token: int, audio_token: int) -> Layout:
    """Lay out a window of `spec` through the processor itself."""
    ids = _token_ids(processor, spec, prompt)
    is_video, is_audio = ids == video_token, ids == audio_token
    media_at = (is_video | is_audio).nonzero()[:, 0]
    is_video = is_video[media_at]
    grids, sounds = spec.pictures // timeline.FRAMES_PER_GRID, int((~is_video).sum())
    frames = timeline.frame_centres_s(spec.frames)
    seen = timeline.interpolation(timeline.video_centres_s(grids, spec.video_fps), frames)
    heard = timeline.interpolation(timeline.audio_centres_s(sounds), frames)
    return Layout(
        ids=ids,
        media_at=media_at,
        is_video=is_video,
        video_rows=is_video.nonzero()[:, 0],
        audio_rows=(~is_video).nonzero()[:, 0],
        video_weights=torch.from_numpy(seen),
        audio_weights=torch.from_numpy(heard),
    )


def _token_ids(processor: Any, spec: WindowSpec, prompt: str) -> Tensor:
    """Token ids [L] of a window: prompt, then interleaved media."""
    inputs = processor(
        text=prompt_with_media(prompt),
        videos=[np.zeros((spec.pictures, spec.size_px, spec.size_px, 3), np.uint8)],
        audio=[np.zeros(spec.samples, np.float32)],
        videos_kwargs={
            "fps": spec.video_fps,
            "do_resize": False,
            "do_sample_frames": False,
            "use_audio_in_video": True,
        },
        return_tensors="pt",
    )
    return inputs["input_ids"][0]
