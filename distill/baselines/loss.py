"""Trans-VAE's loss, with what nobody annotated left out.

    MSE(attributes) + MSE(expression) + 10 · MSE(pose) + kl · KL(N(0, 1)) + diversity · Σ exp(-‖Δ‖² / 100)

Errors, KL (over its 128 numbers and the windows) and the diversity term (over the batch) are means. Δ is the difference
of two answers to one speaker, the second without gradient, once of the attributes and once of the 3DMM coefficients.
It is taken over annotated columns only: a column that no error holds back would otherwise pay the whole term. And it is
measured as if the clip had the published 256 frames and every column, so that shorter clips with fewer columns are not
driven to larger differences.
Shapes: B batch, T frames, A attributes, W windows, D = 128. NaN targets are not annotated.
"""

import torch
from torch import Tensor

from distill.baselines.rollout import Response
from distill.baselines.settings import N_EXPRESSION, TransVaeSettings
from distill.losses import known, masked_mean

POSE_WEIGHT = 10.0
SPREAD, CLIP_FRAMES = 100.0, 256
"""Squared distance at which two answers to a clip of so many frames count as a third (1/e) as alike."""


def squared_error(said: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error where `wanted` is annotated; 0 where nothing is."""
    target, mask = known(wanted)
    return masked_mean((said - target) ** 2, mask)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL from N(mean, e^log_variance) to N(0, 1), averaged over all axes."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()


def alikeness(first: Tensor, second: Tensor, wanted: Tensor) -> Tensor:
    """Mean exp(-‖Δ‖²/100) over the batch, of columns that are annotated in `wanted` [B, T, C]; 0 where none is."""
    used = (~torch.isnan(wanted)).any(dim=1).any(dim=0).to(first.dtype)
    if not bool(used.any()):
        return first.new_zeros(())
    square = ((first - second) ** 2 * used).sum(dim=(1, 2)) / (first.shape[1] * used.sum())
    return torch.exp(-square * CLIP_FRAMES * len(used) / SPREAD).mean()


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
        alike = alikeness(first.attributes, second.attributes, attributes) + alikeness(first.face, second.face, face)
        terms["diversity"] = settings.diversity * alike
    return terms | {"loss": torch.stack(list(terms.values())).sum()}
