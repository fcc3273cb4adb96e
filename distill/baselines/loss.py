"""Trans-VAE's loss, with what nobody annotated left out.

    MSE(attributes) + MSE(expression) + 10 · MSE(pose) + kl · KL(N(0, 1)) + diversity · exp(-‖Δ‖² / 100)

Δ is the difference of two answers to one speaker. It is taken over annotated columns only: a column that no error
holds back would otherwise pay the whole term. The published term is a sum over the batch; here it is a mean, so that
its weight does not depend on the batch. KL is summed over the 128 numbers and averaged over windows.
Shapes: B batch, T frames, A attributes, W windows, D = 128. NaN targets are not annotated.
"""

import torch
from torch import Tensor

from distill.baselines.rollout import Response
from distill.baselines.settings import N_EXPRESSION, TransVaeSettings
from distill.losses import known, masked_mean

POSE_WEIGHT = 10.0
SPREAD = 100.0
"""Squared distance at which two answers count as a third (1/e) as alike."""


def squared_error(said: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error where `wanted` is annotated; 0 where nothing is."""
    target, mask = known(wanted)
    return masked_mean((said - target) ** 2, mask)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL from N(mean, e^log_variance) to N(0, 1), summed over the last axis, averaged over the others."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=-1).mean()


def alikeness(first: Tensor, second: Tensor, wanted: Tensor) -> Tensor:
    """Mean exp(-‖Δ‖²/100) over the batch, of columns that are annotated anywhere in `wanted` [B, T, C]."""
    used = (~torch.isnan(wanted)).any(dim=1).any(dim=0).to(first.dtype)
    distance = ((first - second) ** 2 * used).sum(dim=(1, 2))
    return torch.exp(-distance / SPREAD).mean()


def objective(
    first: Response, second: Response | None, attributes: Tensor, face: Tensor, settings: TransVaeSettings
) -> dict[str, Tensor]:
    """Terms by name, weights applied, and their sum as `loss`; `second` is another answer to the same clips.

    Targets: attributes [B, T, A], 3DMM [B, T, 58].
    """
    terms = {
        "attributes": squared_error(first.attributes, attributes),
        "expression": squared_error(first.face[..., :N_EXPRESSION], face[..., :N_EXPRESSION]),
        "pose": POSE_WEIGHT * squared_error(first.face[..., N_EXPRESSION:], face[..., N_EXPRESSION:]),
        "kl": settings.kl * divergence(first.mean, first.log_variance),
    }
    if second is not None:
        one, other = (torch.cat([r.attributes, r.face], dim=2) for r in (first, second))
        terms["diversity"] = settings.diversity * alikeness(one, other, torch.cat([attributes, face], dim=2))
    return terms | {"loss": torch.stack(list(terms.values())).sum()}
