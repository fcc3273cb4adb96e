"""How far a read-out's answers are trusted: log-odds shrunk towards the base rates by what loses least.

A teacher tuned on little data is too sure of itself on people it has not seen, which costs its labels their calibration
and the student with them. One number for probabilities and one for activations, chosen on the validation sessions from
a short list, mends most of it; they are folded into the last layer of the saved read-out, so that labelling knows
nothing of them.
Shapes: T frames, H horizons, A units, S shares, K = 2 (probability, activation).
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
"""0 is the mean predictor, 1 what was tuned."""


def base_odds(prob_mean: Tensor, act_rate: Tensor) -> Tensor:
    """Log-odds [A, K] of the base rates [A]: where tuning starts, and where answers are shrunk to."""
    return torch.logit(torch.stack([prob_mean, act_rate], dim=-1).clamp(1e-3, 1 - 1e-3))


def shrink(logits: Tensor, base: Tensor, share: Tensor | float) -> Tensor:
    """Log-odds [..., A, K] at a share of their way from the base; a `share` [K] or one for both."""
    return base + share * (logits - base)


def losses(logits: Tensor, target: Tensor, base: Tensor) -> Tensor:
    """Summed cross-entropy [S, K] at every share, and in row S the known cells [K]; NaN targets are left out."""
    known = (~torch.isnan(target)).double()
    target = torch.nan_to_num(target)

    def total(share: float) -> Tensor:
        ce = F.binary_cross_entropy_with_logits(shrink(logits, base, share), target, reduction="none")
        return (ce.double() * known).flatten(0, -2).sum(dim=0)

    return torch.stack([*(total(s) for s in SHARES), known.flatten(0, -2).sum(dim=0)])


def best(sums: Tensor) -> tuple[list[int], float]:
    """Which share [K] loses least, and the mean loss of both kinds there, from added-up `losses`."""
    mean = sums[:-1] / sums[-1].clamp(min=1)
    places = torch.where(sums[-1] > 0, mean.argmin(dim=0), SHARES.index(1.0))  # nothing known: as it is
    return places.tolist(), float(mean[places, torch.arange(2)].sum())


def fold(weights: Mapping[str, Tensor], base: Tensor, share: Tensor) -> dict[str, Tensor]:
    """A read-out's weights, by name, that answer `shrink`ed: its last layer is linear."""
    second, bias = weights["read_out.second"], weights["read_out.second_bias"]
    horizons = bias.shape[1] // 2
    scale = share.repeat(horizons)
    shrunk = {"read_out.second": second * scale, "read_out.second_bias": shrink(bias, base.repeat(1, horizons), scale)}
    return {**weights, **shrunk}
