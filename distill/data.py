"""What a run learns from: its sessions, and the batch of every step.

A batch depends on (seed, step) alone, so that a run that goes on draws what the unbroken one would have drawn. Sessions
that cannot be decoded, or learned from, are named and left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distill import batches
from distill.batches import Batch, TrainingSession
from distill.crew import Crew
from distill.sampler import StratifiedSampler
from dyad.layouts import processed
from dyad.soft_labels import SoftLabelStore
from student import front_cache
from student.spec import StudentSpec

if TYPE_CHECKING:
    from distill.train import Config


class TrainingData:
    """Sessions of a dataset, with extra speakers where there are some."""

    def __init__(self, config: Config, spec: StudentSpec, crew: Crew) -> None:
        """Raises ValueError where nothing can be learned from, or where extra speakers are the dataset's own."""
        self._config, self._spec, self._crew = config, spec, crew
        self.train, self.val = self._open()
        self.sampler = StratifiedSampler(self.train, config.clip_frames, config.stratify, config.extra_share)
        self.mean, self.rate = (batches.known_mean([getattr(s, k) for s in self.train]) for k in ("prob", "act"))
        """[A] of the listeners' probabilities and activities, over what is known of them."""
        self.seen: list[NDArray[np.float32]] = []
        """Visual features of every training session, once the eyes are frozen and have looked."""

    def _open(self) -> tuple[list[TrainingSession], list[TrainingSession]]:
        config = self._config
        with self._crew.lead_first():
            train = self._open_split(config.dataset, "train", config.labels)
            val = self._open_split(config.dataset, "val", config.labels)
            if config.extra is None:
                return train, val
            extra = self._open_split(config.extra, "train", config.extra_labels, annotated=False)
            if twice := sorted({s.id for s in extra} & {s.id for s in (*train, *val)}):
                names = ", ".join(twice[:3])
                raise ValueError(f"{config.extra}: {config.dataset} holds {names} too; extra speakers must be others")
            return train + extra, val

    def _open_split(
        self, root: Path, split: str, labels: Path | None, *, annotated: bool = True
    ) -> list[TrainingSession]:
        """Decoded sessions of a split."""
        spec = self._spec
        store = SoftLabelStore.open(labels, au_names=spec.au_names) if labels else None
        sessions = processed.load(root, split, au_names=spec.au_names)
        dropped = {} if store is None else store.dropped()
        left_out = front_cache.ensure_all(root, sessions, spec, workers=self._config.workers)
        if not annotated and store is not None:
            left_out |= {s.id: "the teacher did not label it" for s in sessions if s.id not in store}
            left_out |= {s.id: f"its soft labels are {dropped[s.id][0]}" for s in sessions if s.id in dropped}
        usable = [s for s in sessions if s.id not in left_out]
        opened = batches.open_sessions(root, usable, spec, store, annotated=annotated)
        if self._crew.leads:
            for session_id, reason in left_out.items():
                print(f"left out {session_id}: {reason}")
            for session_id in sorted(dropped.keys() & {s.id for s in usable}):
                print(f"soft labels of {session_id} not used: {'; '.join(dropped[session_id])}")
            with_soft = sum(s.soft is not None for s in opened)
            whose = split if annotated else f"extra speakers ({root})"
            print(f"{whose}: {len(usable)} sessions, {with_soft} with soft labels, {len(left_out)} left out")
        if not usable:
            raise ValueError(f"{root}/processed/{split}: no session can be learned from; see the reasons above")
        return opened

    def kept_in(self, session: TrainingSession) -> Path | None:
        """Where frozen features of a session are kept: beside its decoded media, when the eyes are a shared file."""
        if self._config.eyes is None:
            return None
        folder = front_cache.folder_of(self._config.dataset, self._spec) / session.id
        if not folder.is_dir() and self._config.extra is not None:
            folder = front_cache.folder_of(self._config.extra, self._spec) / session.id
        return folder

    def batch(self, step: int, purpose: int = 0) -> Batch:
        """The batch of a step; calibration draws its own, under another purpose."""
        config, spec = self._config, self._spec
        parts = (config.seed, purpose, step)
        rng = np.random.default_rng(self._crew.seed(*parts) if purpose == 0 else parts)
        picks = self.sampler.draw(config.batch, rng)
        seen = self.seen if purpose == 0 and step < config.steps else []
        return batches.stack(
            [
                batches.cut_clip(
                    self.train[i], start, config.clip_frames, spec, rng, config.augment, seen=seen[i] if seen else None
                )
                for i, start in picks
            ]
        )

    def batches(self, first: int, total: int) -> Iterator[Batch]:
        """Batches of steps `first` to `total`, the next one cut while the present one trains."""
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.batch, first)
            for step in range(first, total):
                batch = waiting.result()
                waiting = pool.submit(self.batch, step + 1)
                yield batch
