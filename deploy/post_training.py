"""A float checkpoint in INT8 without training: scales from the first seconds of a dataset, else from a drawn speaker.

The dataset goes through the same front end and cache as in training, without a line of the training code. The result
is compared with the float model on other frames than it was calibrated on.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from student.spec import StudentSpec

if TYPE_CHECKING:
    from student.model import Student

SESSIONS, FRAMES = 8, 60
"""How much is enough for the largest magnitudes: 8 speakers, 2 s of each."""

Sample = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]
"""frame_u8 [T, h, w, 3], audio [T, 800], present [T, 2]."""


def from_dataset(dataset: Path, spec: StudentSpec, *, sessions: int = SESSIONS, frames: int = FRAMES) -> list[Sample]:
    """First frames of training sessions spread evenly over the dataset.

    Sessions whose media fail are left out; raises ValueError with the first reason when none is left.
    """
    from dyad.layouts import processed
    from student import front_cache
    from student.frontend import audio_window

    known = processed.load(dataset, "train", au_names=spec.au_names)
    places = np.unique(np.linspace(0, len(known) - 1, min(sessions, len(known))).round().astype(int))
    chosen = [known[i] for i in places]
    reasons = front_cache.ensure_all(dataset, chosen, spec)
    out: list[Sample] = []
    for session in chosen:
        if session.id in reasons:
            continue
        front = front_cache.load(dataset, session.id, spec)
        count = min(frames, len(front.frames))
        windows = np.stack([audio_window(front.audio, t, spec) for t in range(count)])
        out.append((np.array(front.frames[:count]), windows, np.array(front.present[:count])))
    if not out:
        why = next(iter(reasons.values()), "it has no session")
        raise ValueError(f"{dataset}: nothing to calibrate on ({why}); give a dataset of python -m dyad.prepare")
    return out


def drawn(spec: StudentSpec, steps: int) -> list[Sample]:
    """A drawn speaker, other than the one that engines are compared on."""
    from deploy.parity import recorded_stream

    stream = recorded_stream(spec, steps, seed=1)
    frames, audio, present = (np.stack([s[name] for s in stream]) for name in ("frame_u8", "audio", "present"))
    return [(frames, audio, present)]


def quantised(model: "Student", dataset: Path | None, steps: int) -> "Student":
    """A quantised copy of a float student; without a dataset, calibrated on `steps` frames of a drawn speaker."""
    import copy

    import torch

    from student.calibration import prepare

    samples = drawn(model.spec, steps) if dataset is None else from_dataset(dataset, model.spec)
    tensors = [[torch.from_numpy(part)[None] for part in sample] for sample in samples]
    return prepare(copy.deepcopy(model), [(frames, audio, present) for frames, audio, present in tensors])
