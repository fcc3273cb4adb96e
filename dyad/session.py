"""One conversation: what a speaker did, and how the listener's face answered.

Shapes: T frames at 30 Hz, A action units. Source: the system's requirements, "sample data structure".
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Speaker(Protocol):
    """The speaker's side of a conversation: all that a teacher needs for labelling. A `Session` has it."""

    @property
    def id(self) -> str:
        """Name of the session."""
        ...

    @property
    def speaker_video_path(self) -> Path:
        """Pictures."""
        ...

    @property
    def speaker_audio_path(self) -> Path:
        """Sound."""
        ...

    @property
    def n_frames(self) -> int:
        """Frames at 30 Hz."""
        ...


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A `Speaker` alone, without the listener's annotation: small enough to hold a million of."""

    id: str
    speaker_video_path: Path
    speaker_audio_path: Path
    n_frames: int


@dataclass(frozen=True, kw_only=True)
class Session:
    """One conversation of a dataset.

    `prob` [T, A] is the probability of each unit in [0, 1], `act` [T, A] whether it is active, 0 or 1. NaN in either
    means "not annotated": such cells are masked everywhere and never read as zero.
    """

    id: str
    speaker_video_path: Path
    speaker_audio_path: Path
    listener_video_path: Path | None
    listener_audio_path: Path | None
    au_names: tuple[str, ...]
    prob: NDArray[np.float32]
    act: NDArray[np.float32]
    fps: float
    duration_s: float
    n_frames: int

    def validate(self) -> None:
        """Raise ValueError, naming session, unit and frame, where the annotation breaks its contract."""
        wanted = (self.n_frames, len(self.au_names))
        for name, values in (("prob", self.prob), ("act", self.act)):
            if values.shape != wanted:
                raise ValueError(f"session {self.id}: {name} has shape {values.shape}, wanted {wanted} (frames, units)")
            bad = np.argwhere((values < 0) | (values > 1) | np.isinf(values))
            if len(bad):
                t, a = (int(i) for i in bad[0])
                raise ValueError(
                    f"session {self.id}: {name} of {self.au_names[a]} at frame {t} is {values[t, a]}, "
                    "wanted a value in [0, 1]; prepare the session again"
                )
        if abs(self.fps - 30) > 1e-3:
            raise ValueError(
                f"session {self.id}: annotated at {self.fps:g} frames per second, wanted 30; "
                "build the dataset with: python -m dyad.prepare"
            )
