"""Who computes the teacher's answers: one file per back end, one interface."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Backend(Protocol):
    """Windows in, log-odds out."""

    def label(self, pictures: NDArray[np.uint8], sounds: NDArray[np.float32], seed: int | None) -> NDArray[np.float32]:
        """Windows [B, pictures, h, w, 3], [B, samples] → log-odds [B, T, A, 2]; a seed asks for a stochastic pass."""
        ...
