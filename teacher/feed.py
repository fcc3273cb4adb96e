"""From draws to what the model reads: the forward passes of every step, cut ahead of the model.

Shapes: B windows, T frames, H horizons, A units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from teacher.qwen_omni import MediaBatch, OmniTeacher
from teacher.sampling import Dyad, Sampler, Window, cut_window, mask_spectrum

if TYPE_CHECKING:
    from teacher.tune import Config

Targets = tuple[Tensor, Tensor, Tensor]
"""prob and act [B, T, H, A], the speaker's units [B, T, A]."""
Part = tuple[MediaBatch, Targets]
"""What one forward pass reads."""


class Feed:
    """The training windows; every draw depends on (seed, step, place) alone."""

    def __init__(self, config: Config, teacher: OmniTeacher, dyads: Sequence[Dyad]) -> None:
        self.config, self.teacher, self.dyads = config, teacher, dyads
        self.sampler = Sampler(dyads, config.window, config.window_min_s, config.stratify, config.seed)

    def pack(self, windows: Sequence[Window], mask: np.random.Generator | None = None) -> Part:
        """Windows of one length, their spectrum masked by the draws of `mask`."""
        pictures, sound, *targets = (
            np.stack([getattr(w, k) for w in windows]) for k in ("pictures", "sound", "prob", "act", "speaker_au")
        )
        batch = self.teacher.pack(pictures, sound)
        if mask is not None:
            mask_spectrum(batch.features.numpy(), mask, self.config.mask_bands, self.config.mask_columns)
        prob, act, speaker = (torch.from_numpy(t) for t in targets)
        return batch, (prob, act, speaker)

    def part(self, step: int, place: int) -> Part:
        """The windows of forward pass `place` of a step."""
        config = self.config
        spec, windows = replace(config.window, frames=self.sampler.length(step)), []
        for k, (i, start) in enumerate(self.sampler.draw(step, place, config.batch)):
            rng = np.random.default_rng([config.seed, step, 2, place, k])
            windows.append(cut_window(self.dyads[i], start, spec, config.horizons, config.augment, rng))
        return self.pack(windows, np.random.default_rng([config.seed, step, 3, place]))

    def steps(self, first: int, places: Sequence[int]) -> Iterator[list[Part]]:
        """Forward passes at `places` of the steps from `first` on, the next step's cut while one's are read."""
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda step: [self.part(step, k) for k in places], first)
            for step in range(first, self.config.steps):
                ready = waiting.result()
                waiting = pool.submit(lambda step: [self.part(step, k) for k in places], step + 1)
                yield ready
