"""The whole distillation objective: hard labels, the teacher's soft ones, and a CCC term, each with a weight."""

import torch
from torch import Tensor

from distill import losses
from distill.batches import Batch
from distill.weights import LossWeights


def objective(
    logits: Tensor, batch: Batch, speaker_logit: Tensor | None, frequency: Tensor, config: LossWeights
) -> dict[str, Tensor]:
    """Terms by name, weights applied, and their sum as `loss`. `logits` [B, T, H, A, 2]."""
    prob, act = logits[..., 0], logits[..., 1]
    zero = logits.new_zeros(())
    terms = {
        "hard": config.hard * (losses.cross_entropy(prob, batch.prob) + losses.cross_entropy(act, batch.act)),
        "ccc": config.ccc * losses.ccc_loss(prob, batch.prob) if config.ccc else zero,
        "focal": config.focal * losses.focal(act, batch.act) if config.focal else zero,
        "temporal": config.temporal * losses.temporal(prob) if config.temporal else zero,
    }
    if config.soft:
        trust = losses.confidence(torch.nan_to_num(batch.uncertainty), config.uncertainty_scale)
        soft_prob = losses.soften(batch.soft_prob, config.temperature)
        soft_act = losses.soften(torch.sigmoid(batch.soft_act), config.temperature)
        both = losses.cross_entropy(prob, soft_prob, trust) + losses.cross_entropy(act, soft_act, trust)
        terms["soft"] = config.soft * both
    if config.weighted_regression:
        weights = losses.frequency_weights(frequency)
        terms["regression"] = config.weighted_regression * losses.weighted_squared_error(prob, batch.prob, weights)
    if speaker_logit is not None and config.speaker_au:
        seen = torch.where(batch.present[..., :1] > 0.5, batch.speaker_au, torch.nan)
        terms["speaker_au"] = config.speaker_au * losses.cross_entropy(speaker_logit, seen)
    terms["loss"] = torch.stack(list(terms.values())).sum()
    return terms
