"""Windows of a session → one soft sequence in the store.

Sessions are decoded ahead of the model by a few threads, and each is written as soon as it is blended; what a session's
labels are depends on its media and the teacher alone, not on what was labelled before it or beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dyad.action_units import SEED17
from dyad.config import as_dict
from dyad.provenance import run_card
from dyad.session import Clip
from dyad.soft_labels import SoftLabelStore
from teacher import adapter, dataset
from teacher.backends import Backend
from teacher.blend import Floats, answers, blend
from teacher.windows import SpeakerMedia, starts

if TYPE_CHECKING:
    from teacher.label import Config


@dataclass(frozen=True)
class Outcome:
    """What became of a session: `fault` is empty when it was labelled."""

    session: str
    fault: str = ""


def open_store(config: Config) -> SoftLabelStore:
    """The store that `config` writes to, begun or gone on with; raises ValueError where it was begun otherwise."""
    mark = adapter.teacher_hash(config.teacher)
    card = run_card(command="teacher.label", config=as_dict(config), inputs={"teacher": mark})
    recipe = {"hop_frames": config.hop_frames, "sub_networks": config.sub_networks, "backend": config.backend}
    return SoftLabelStore.create(config.out, au_names=SEED17.units, teacher_hash=mark, run=card, recipe=recipe)


def open_backend(config: Config) -> Backend:
    """The back end of this name."""
    if config.backend == "vllm":
        from teacher.backends.vllm import VllmBackend

        return VllmBackend(config.teacher)
    from teacher.backends.transformers import TransformersBackend

    return TransformersBackend.load(config.teacher, config.base, config.batch)


def label_session(
    backend: Backend, speaker: SpeakerMedia, n_frames: int, *, hop: int, sub_networks: int
) -> tuple[Floats, Floats, Floats]:
    """Probability, activation log-odds and uncertainty of a session, each [T, A]."""
    at = starts(n_frames, backend.spec, hop)
    features = backend.features(speaker, at)
    device = backend.read_out.project.weight.device
    masks = backend.read_out.sub_networks(sub_networks).to(device)
    prob, logit, variance = answers(backend.read_out, backend.layout, torch.from_numpy(features).to(device), masks)
    return blend(at, prob, logit, variance, n_frames)


class Labeller:
    """One process that labels: a back end and the store."""

    def __init__(self, config: Config) -> None:
        torch.set_num_threads(config.threads)
        self.config, self.store, self.backend = config, open_store(config), open_backend(config)

    def run(self, sessions: Iterable[Clip]) -> Iterator[Outcome]:
        """Label sessions in order, each as soon as it can be; a session whose media fail has a fault."""
        for session, media in self._ahead(sessions):
            try:
                labels = self._labels(session, media.result())
                self.store.write(session.id, *labels)
            except ValueError as error:  # media that cannot be decoded, numbers that are none; a full disk ends the run
                yield Outcome(session.id, str(error))
                continue
            yield Outcome(session.id)

    def _labels(self, session: Clip, speaker: SpeakerMedia) -> tuple[Floats, Floats, Floats]:
        hop, members = self.config.hop_frames, self.config.sub_networks
        return label_session(self.backend, speaker, session.n_frames, hop=hop, sub_networks=members)

    def _ahead(self, sessions: Iterable[Clip]) -> Iterator[tuple[Clip, Future[SpeakerMedia]]]:
        """Sessions with their media, decoded up to `decoders` sessions ahead of the model."""
        waiting: deque[tuple[Clip, Future[SpeakerMedia]]] = deque()
        with ThreadPoolExecutor(self.config.decoders) as pool:
            for session in sessions:
                job = pool.submit(dataset.cached_speaker, self.config.dataset, session, self.backend.spec)
                waiting.append((session, job))
                if len(waiting) > self.config.decoders:
                    yield waiting.popleft()
            yield from waiting


def outstanding(store: SoftLabelStore, sessions: list[Clip], again: bool) -> list[Clip]:
    """Sessions still to label; of those asked for, damaged shards and those of another length are named, removed and
    made again. `again` takes all.
    """
    frames = {s.id: s.n_frames for s in sessions}
    for session_id, reason in [*store.broken(), *_of_another_length(store, frames)]:
        if session_id not in frames:
            print(f"damaged, and not asked for now: {reason}")
            continue
        print(f"labelling {session_id} again: {reason}")
        store.remove(session_id)
    return sessions if again else [s for s in sessions if s.id not in store]


def _of_another_length(store: SoftLabelStore, frames: dict[str, int]) -> list[tuple[str, str]]:
    """(session, reason) of labels whose session was prepared anew since."""
    broken, found = {i for i, _ in store.broken()}, []
    for session_id in sorted(frames.keys() & set(store.ids()) - broken):
        count = len(store.read(session_id).prob)
        if count != frames[session_id]:
            found.append((session_id, f"{count} frames are labelled, but the session has {frames[session_id]}"))
    return found
