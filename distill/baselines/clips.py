"""The clips of a baseline's step: what was seen and heard, and what is to be answered, drawn by (seed, step) alone.

Shapes: B clips, T frames, A attributes, D = 128, h = w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.baselines.inputs import Material
from dyad import augment

if TYPE_CHECKING:
    from distill.train import Config


@dataclass(frozen=True)
class Clips:
    """Sessions as long as a clip, or longer; `seen` are their features where the eyes stay as they are.

    These know which frames they were normalised with, so that clips begin on a grid: online features [T, D] know their
    window's end, offline ones [T, D] the whole session, or of [N, T, D] there is a clip for every place of the grid.
    """

    materials: Sequence[Material]
    config: Config
    seen: Sequence[Tensor] = ()
    grid_frames: int = 1

    def draw(self, step: int) -> list[Tensor]:
        """Crops [B, T, h, w, 3] or features [B, T, D], cepstra [B, T, 78], and the targets, `ahead_frames` later."""
        config, rng = self.config, np.random.default_rng((self.config.seed, step))
        lengths = np.array([m.n_frames - config.clip_frames + 1 for m in self.materials], np.float64)
        cut: list[tuple[NDArray[Any], ...]] = []
        for i in rng.choice(len(self.materials), config.batch, p=lengths / lengths.sum()):
            material, start = self.materials[i], int(rng.integers(int(lengths[i])))
            start -= start % self.grid_frames
            part = slice(start, start + config.clip_frames)
            first = start + config.transvae.ahead_frames
            wanted = (later(v, first, config.clip_frames) for v in (material.attributes, material.face))
            cut.append((self._shown(int(i), part, rng), material.cepstra[part], *wanted))
        return [torch.from_numpy(np.stack(column)) for column in zip(*cut, strict=True)]

    def _shown(self, which: int, part: slice, rng: np.random.Generator) -> NDArray[Any]:
        if self.seen:
            seen = self.seen[which]
            return (seen[part] if seen.ndim == 2 else seen[part.start // self.grid_frames]).numpy()
        moved = augment.move_picture(self.materials[which].frames[part], rng, self.config.augment)
        return augment.light(moved, rng, self.config.augment)


def later(values: NDArray[np.float32], first: int, frames: int) -> NDArray[np.float32]:
    """Rows first … first + frames - 1, NaN past the end."""
    out = np.full((frames, values.shape[1]), np.nan, np.float32)
    there = values[first : first + frames]
    out[: len(there)] = there
    return out
