"""The embedded back end: transformers, on a CPU or a GPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from teacher import adapter
from teacher.qwen_omni import OmniTeacher
from teacher.windows import SpeakerMedia


class TransformersBackend:
    """A tuned teacher through transformers."""

    def __init__(self, teacher: OmniTeacher, batch: int = 4) -> None:
        """`batch` windows go through the model at a time; overlapping ones share what they show."""
        self.teacher, self.batch = teacher, batch
        self.device = teacher.read_out.project.weight.device
        self.spec, self.read_out = teacher.spec, teacher.read_out
        self.layout = teacher.layout(teacher.spec.frames, self.device)
        with torch.no_grad():
            self._prefix = teacher.prefix(teacher.spec.frames, self.device)

    @classmethod
    def load(cls, folder: Path, base: str | None = None, batch: int = 4) -> "TransformersBackend":
        """From a teacher's folder; `base` as in `adapter.load`."""
        return cls(adapter.load(folder, base)[0].to(adapter.device()), batch)

    @torch.no_grad()
    def features(self, speaker: SpeakerMedia, at: Sequence[int]) -> NDArray[np.float32]:
        """See `Backend`."""
        parts = []
        for first in range(0, len(at), self.batch):
            batch = self.teacher.pack_stretch(speaker, at[first : first + self.batch]).to(self.device)
            parts.append(self.teacher.token_features(batch, self._prefix).cpu())
        return torch.cat(parts).numpy()
