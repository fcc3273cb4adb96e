"""Score a student on whole sessions while it trains: skill and macro CCC at a few horizons."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill.batches import TrainingSession, audio_windows
from dyad.metrics import agreement
from student.model import Student

Floats = NDArray[np.float32]


@torch.no_grad()
def predict(
    model: Any, session: TrainingSession, chunk_frames: int = 256, *, seen: Floats | None = None
) -> tuple[Floats, Floats]:
    """Stream a session in chunks: probability and activation probability, each [T, H, A].

    With `seen` [T, D], what the eyes made of the session, its pictures are not looked at again. `model` is a student
    or a peer with a student's signature.
    """
    front, n = session.front, session.n_frames
    device = model.heads.out.bias.device
    windows = torch.from_numpy(audio_windows(front.audio, n, model.spec))[None]
    present = torch.from_numpy(front.present[:n])[None]
    state, out = model.init_state(1), []
    for start in range(0, n, chunk_frames):
        part = slice(start, min(start + chunk_frames, n))
        if seen is None:
            looked = model.visual_features(torch.from_numpy(np.array(front.frames[part]))[None].to(device))
        else:
            looked = torch.from_numpy(seen[part])[None].to(device)
        logits, state = model.from_features(looked, windows[:, part].to(device), present[:, part].to(device), state)
        out.append(torch.sigmoid(logits[0]).cpu().numpy())
    whole = np.concatenate(out)
    return whole[..., 0], whole[..., 1]


def ahead(prob: Floats, true: Floats, column: int, horizon: int) -> tuple[Floats, Floats]:
    """Predictions for a horizon and the truth they were meant for, both [T - horizon, A]."""
    n = min(len(prob), len(true)) - horizon
    return prob[:n, column], true[horizon : horizon + n]


def validate(model: Student, sessions: Sequence[TrainingSession], mean: Floats) -> dict[str, float]:
    """Skill over the mean predictor and macro CCC at the first, middle and last horizon."""
    model.eval()
    horizons = model.spec.horizons
    columns = sorted({0, len(horizons) // 2, len(horizons) - 1})
    totals: dict[int, list[NDArray[np.float64]]] = {c: [] for c in columns}
    for session in sessions:
        prob, _ = predict(model, session)
        for c in columns:
            guess, true = ahead(prob, session.prob, c, horizons[c])
            totals[c].append(agreement.sums(guess, true, mean))
    result: dict[str, float] = {}
    for c in columns:
        scores = agreement.scores(np.sum(totals[c], axis=0))
        result[f"skill_h{horizons[c]}"] = float(scores.total_skill)
        result[f"ccc_h{horizons[c]}"] = agreement.macro(scores.ccc)[0]
    return result
