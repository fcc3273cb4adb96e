"""The terms of the tuning loss, each a small function of log-odds and targets.

By default cross-entropy, which is proper and hence calibrated, and a little CCC; weighted regression, focal and
temporal terms, which the requirement names, are switches. Units are averaged after their frames, so that a unit that is
annotated in few sessions counts as much as the others; NaN targets are left out of every term.
Shapes: B windows, T frames, H horizons, A units; log-odds [B, T, H, A, 2] of probability and activation.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from teacher.loss_weights import LossWeights


def known(target: Tensor) -> tuple[Tensor, Tensor]:
    """Targets with NaN replaced by 0, and a weight that is 0 there."""
    mask = ~torch.isnan(target)
    return torch.nan_to_num(target), mask.to(target.dtype)


def unit_mean(values: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the known cells of each unit, then over the units that have any; `weights` [A] of the units."""
    counts = mask.sum(dim=(0, 1, 2))
    share = (counts > 0).to(values.dtype) * (1.0 if weights is None else weights)
    per_unit = (values * mask).sum(dim=(0, 1, 2)) / counts.clamp(min=1)
    return (per_unit * share).sum() / share.sum().clamp(min=1e-6)


def cross_entropy(logit: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy against probabilities in [0, 1]."""
    target, mask = known(target)
    return unit_mean(F.binary_cross_entropy_with_logits(logit, target, reduction="none"), mask)


def ccc_loss(logit: Tensor, target: Tensor) -> Tensor:
    """1 - CCC (Lin, 1989) per horizon and unit over batch and time, averaged where the target varies."""
    target, mask = known(target)
    prob, n = torch.sigmoid(logit), mask.sum(dim=(0, 1)).clamp(min=1)
    mp, my = ((v * mask).sum(dim=(0, 1)) / n for v in (prob, target))
    dp, dy = (prob - mp) * mask, (target - my) * mask
    vp, vy, cov = (v.sum(dim=(0, 1)) / n for v in (dp * dp, dy * dy, dp * dy))
    varies = (vy > 1e-5).to(logit.dtype)
    ccc = 2 * cov / (vp + vy + (mp - my) ** 2 + 1e-6)
    return ((1 - ccc) * varies).sum() / varies.sum().clamp(min=1)


def frequency_weights(frequency: Tensor, offset: float = 1.02) -> Tensor:
    """Weight of each unit from its activation frequency [A], mean 1: rare units count more.

    The requirement writes w = 1/log(f + ε), a trap: frequencies lie below 1, so the logarithm is negative (f = .05,
    ε = .001: w = -.34) and the term would reward errors; without its sign it favours the frequent (f = .5: 1.45), and
    at f + ε = 1 it is infinite. Its source has a constant above 1 in the logarithm, 1/log(1.02 + f) (Paszke et al.,
    2016): positive, falling in f, and between 50 (f = 0) and 1.4 (f = 1) before the mean is made 1.
    """
    weight = 1 / torch.log(frequency.clamp(0, 1) + offset)
    return weight / weight.mean()


def weighted_squared_error(logit: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Squared error of probabilities, weighted per unit [A]."""
    target, mask = known(target)
    return unit_mean((torch.sigmoid(logit) - target) ** 2, mask, weights)


def focal(logit: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Focal loss (Lin et al., 2017) on activations: easy frames count little."""
    target, mask = known(target)
    ce = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    p = torch.sigmoid(logit)
    hit = p * target + (1 - p) * (1 - target)
    balance = alpha * target + (1 - alpha) * (1 - target)
    return unit_mean(balance * (1 - hit) ** gamma * ce, mask)


def temporal(logit: Tensor, target: Tensor) -> Tensor:
    """Squared change of the probability between successive frames that are both annotated."""
    prob, mask = torch.sigmoid(logit), known(target)[1]
    return unit_mean((prob[:, 1:] - prob[:, :-1]) ** 2, mask[:, 1:] * mask[:, :-1])


def listener_terms(logits: Tensor, prob: Tensor, act: Tensor, weights: LossWeights, rates: Tensor) -> dict[str, Tensor]:
    """Every term of the listener that is on, and `listener`, their weighted sum.

    Log-odds [B, T, H, A, 2], targets [B, T, H, A], activation `rates` [A].
    """
    prob_logit, act_logit = logits.unbind(-1)
    terms = {
        "cross_entropy": lambda: cross_entropy(prob_logit, prob) + cross_entropy(act_logit, act),
        "ccc": lambda: ccc_loss(prob_logit, prob),
        "regression": lambda: weighted_squared_error(prob_logit, prob, frequency_weights(rates)),
        "focal": lambda: focal(act_logit, act),
        "temporal": lambda: temporal(prob_logit, prob),
    }
    on = {name: term() for name, term in terms.items() if getattr(weights, name) > 0}
    return {"listener": torch.stack([getattr(weights, k) * v for k, v in on.items()]).sum()} | on


def with_speaker(terms: dict[str, Tensor], logits: Tensor, units: Tensor, weight: float) -> dict[str, Tensor]:
    """The same with the speaker's own units [B, T, A], and `loss`, all of it."""
    if weight == 0:
        return terms | {"loss": terms["listener"] + 0 * logits.sum()}  # every weight keeps a gradient: DDP waits for it
    speaker = cross_entropy(logits[:, :, None], units[:, :, None])
    return terms | {"speaker_au": speaker, "loss": terms["listener"] + weight * speaker}
