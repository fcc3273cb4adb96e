"""How well a teacher tells the listeners of a set of sessions: loss, skill over the mean predictor, CCC.

Windows side by side cover every session; the processes of a run share them out and add up their sums. Scores are those
of the answers as they are saved, at the trust that loses least (`teacher.trust`).
Shapes: T frames, H horizons, A units.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from dyad.action_units import SEED17
from dyad.augment import OFF
from dyad.metrics import agreement
from teacher import trust
from teacher.crew import Crew
from teacher.sampling import Dyad, Floats, Window, cut_window
from teacher.window_spec import WindowSpec
from teacher.windows import starts

Answer = Callable[[Window], Tensor]
"""A window → log-odds [T, H, A, 2]."""


def cover(dyads: Sequence[Dyad], spec: WindowSpec) -> list[tuple[int, int]]:
    """(index of dyad, start frame) of windows side by side over all sessions."""
    return [(i, at) for i, d in enumerate(dyads) for at in starts(d.speaker.n_frames, spec, spec.frames)]


@torch.no_grad()
def validate(
    answer: Answer, dyads: Sequence[Dyad], spec: WindowSpec, horizons: int, mean: Floats, base: Tensor, crew: Crew
) -> dict[str, float]:
    """Scores over all anchors and horizons; every process reads as many windows, an odd one's last counts nought.

    `mean` [A] is the predictor that skill is measured against, `base` [A, 2] where log-odds are shrunk to.
    """
    windows = cover(dyads, spec)
    sums, lost = np.zeros((len(trust.SHARES), len(mean), 8)), torch.zeros(len(trust.SHARES) + 1, 2).double()
    for k in range(-(-len(windows) // crew.size)):
        place = k * crew.size + crew.rank
        i, start = windows[min(place, len(windows) - 1)]
        window = cut_window(dyads[i], start, spec, horizons, OFF, np.random.default_rng(0))
        logits = answer(window).float().cpu()
        if place < len(windows):
            lost += trust.losses(logits, torch.from_numpy(np.stack([window.prob, window.act], axis=-1)), base)
            sums += _sums(logits[..., 0], window.prob, mean, base[:, 0])
    places, loss = trust.best(crew.total(lost))
    scores = agreement.scores(crew.total(torch.from_numpy(sums)).numpy()[places[0]])
    shares = {"trust/prob": trust.SHARES[places[0]], "trust/act": trust.SHARES[places[1]]}
    return {"val_loss": loss} | _told(scores) | shares


def _sums(logits: Tensor, prob: Floats, mean: Floats, base: Tensor) -> agreement.Array:
    """Sums of a window [S, A, 8] at every share of trust."""
    truth = prob.reshape(-1, prob.shape[-1])
    guesses = (torch.sigmoid(trust.shrink(logits, base, s)).flatten(0, 1).numpy() for s in trust.SHARES)
    return np.stack([agreement.sums(guess, truth, mean) for guess in guesses])


def _told(scores: agreement.Scores) -> dict[str, float]:
    ccc, _ = agreement.macro(scores.ccc)
    of_units = {f"ccc/{u}": float(v) for u, v in zip(SEED17.units, scores.ccc, strict=True) if not math.isnan(v)}
    return {"skill": float(scores.total_skill), "ccc": 0.0 if math.isnan(ccc) else ccc} | of_units
