"""The terms of the distillation loss, each a small function of log-odds and targets.

Shapes: [B, T, H, A] batch, frames, horizons, units. NaN targets are left out of every term.
Defaults follow measurement on synthetic dyads (docs/ablation.md): cross-entropy on annotated and on the teacher's
probabilities, plus a little CCC against collapse to the mean; focal, weighted and temporal terms are switches.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean; 0 when nothing counts."""
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


def known(target: Tensor) -> tuple[Tensor, Tensor]:
    """Targets with NaN replaced by 0, and a weight that is 0 there."""
    mask = ~torch.isnan(target)
    return torch.nan_to_num(target), mask.to(target.dtype)


def cross_entropy(logit: Tensor, target: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Binary cross-entropy against probabilities in [0, 1]: proper for soft labels, hence calibrated (Brier/Good)."""
    target, mask = known(target)
    return masked_mean(F.binary_cross_entropy_with_logits(logit, target, reduction="none"), mask * weight)


def soften(prob: Tensor, temperature: float) -> Tensor:
    """Probabilities at a temperature (Hinton et al., 2015), through their log-odds; 1 leaves them as they are."""
    return prob if temperature == 1.0 else torch.sigmoid(torch.logit(prob.clamp(1e-4, 1 - 1e-4)) / temperature)


def confidence(uncertainty: Tensor, scale: float = 0.1) -> Tensor:
    """Weight in (0, 1] of a soft label: 1/(1 + (u/scale)²); a label as uncertain as `scale` counts half."""
    return 1.0 / (1.0 + (uncertainty / scale) ** 2)


def ccc_loss(logit: Tensor, target: Tensor) -> Tensor:
    """1 - CCC (Lin, 1989) per horizon and unit over batch and time, averaged; pulls predictions off the flat mean."""
    target, mask = known(target)
    prob = torch.sigmoid(logit)
    n = mask.sum(dim=(0, 1)).clamp(min=1)

    def mean(x: Tensor) -> Tensor:
        return (x * mask).sum(dim=(0, 1)) / n

    mp, my = mean(prob), mean(target)
    vp, vy = mean((prob - mp) ** 2), mean((target - my) ** 2)
    cov = mean((prob - mp) * (target - my))
    varies = (vy > 1e-5).to(logit.dtype)
    return masked_mean(1 - 2 * cov / (vp + vy + (mp - my) ** 2 + 1e-6), varies)


def focal(logit: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Focal loss (Lin et al., 2017) on activations: easy frames count little. Costs calibration."""
    target, mask = known(target)
    ce = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    p = torch.sigmoid(logit)
    hit = p * target + (1 - p) * (1 - target)
    balance = alpha * target + (1 - alpha) * (1 - target)
    return masked_mean(balance * (1 - hit) ** gamma * ce, mask)


def frequency_weights(frequency: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Weight of each unit from its activation frequency [A], mean 1: rare units count more.

    The requirement writes 1/log(f + ε), which is negative for every f < 1 and would reward errors; the sign is turned:
    -1/log(f + ε), growing towards frequent units, so its inverse is what favours rare ones: -log(f + ε).
    """
    weight = -torch.log((frequency + epsilon).clamp(max=0.99))
    return weight / weight.mean()


def weighted_squared_error(logit: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Squared error of probabilities, weighted per unit [A]."""
    target, mask = known(target)
    return masked_mean((torch.sigmoid(logit) - target) ** 2, mask * weights)


def temporal(logit: Tensor) -> Tensor:
    """Squared change from frame to frame. Flattens reactions (measured): smooth after the model instead."""
    prob = torch.sigmoid(logit)
    return ((prob[:, 1:] - prob[:, :-1]) ** 2).mean()
