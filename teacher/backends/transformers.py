"""The embedded back end: transformers, on a CPU or a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from teacher import adapter


class TransformersBackend:
    """A tuned teacher through transformers and peft."""

    def __init__(self, folder: Path) -> None:
        teacher, self.contract = adapter.load(folder)
        self.device = adapter.device()
        self.teacher = teacher.to(self.device)
        self.spec = teacher.spec

    @torch.no_grad()
    def label(self, pictures: NDArray[np.uint8], sounds: NDArray[np.float32], seed: int | None) -> NDArray[np.float32]:
        """See `Backend`; a stochastic pass keeps dropout on."""
        self.teacher.train(seed is not None)
        if seed is not None:
            torch.manual_seed(seed)
        logits: Any = self.teacher(self.teacher.pack(pictures, sounds).to(self.device))
        return logits.float().cpu().numpy()
