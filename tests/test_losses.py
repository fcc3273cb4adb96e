"""Every loss term against its formula in numpy, and what a missing label may do: nothing."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill import losses
from distill.batches import Batch
from distill.objective import objective
from distill.weights import LossWeights

SHAPE = (2, 12, 3, 4)
"""Clips, frames, horizons, units."""


def tensors(seed: int) -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=make), torch.rand(SHAPE, generator=make)


def batch_of(seed: int, *, soft: bool = True, uncertainty: float = 0.0) -> Batch:
    make = torch.Generator().manual_seed(seed)
    clips, frames, _, units = SHAPE
    nothing = torch.full(SHAPE, torch.nan)
    return Batch(
        frame_u8=torch.zeros(clips, frames, 8, 8, 3, dtype=torch.uint8),
        audio=torch.zeros(clips, frames, 800),
        present=torch.ones(clips, frames, 2),
        prob=torch.rand(SHAPE, generator=make),
        act=(torch.rand(SHAPE, generator=make) > 0.7).float(),
        soft_prob=torch.rand(SHAPE, generator=make) if soft else nothing,
        soft_act=torch.randn(SHAPE, generator=make) if soft else nothing,
        uncertainty=torch.full(SHAPE, uncertainty) if soft else nothing,
        speaker_au=torch.rand(clips, frames, units, generator=make),
        seen=torch.zeros(clips, frames, 0),
    )


def test_cross_entropy_equals_its_formula_on_soft_targets() -> None:
    logit, target = tensors(0)
    p, y = torch.sigmoid(logit).double().numpy(), target.double().numpy()
    want = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(losses.cross_entropy(logit, target)) == pytest.approx(want, rel=1e-5)


def test_cross_entropy_is_least_at_the_target_itself() -> None:
    target = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    logit = torch.logit(target).requires_grad_()
    losses.cross_entropy(logit, target).backward()
    assert logit.grad is not None
    assert float(logit.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("term", ["cross_entropy", "ccc_loss", "focal", "weighted_squared_error"])
def test_a_missing_label_gives_no_gradient_and_changes_no_value(term: str) -> None:
    logit, target = tensors(2)
    target = (target > 0.5).float()
    target[0, 3:7] = torch.nan
    extra = (torch.ones(SHAPE[-1]),) if term == "weighted_squared_error" else ()
    loss = getattr(losses, term)
    inside = logit.clone().requires_grad_()
    value = loss(inside, target, *extra)
    value.backward()
    assert inside.grad is not None
    assert torch.isfinite(inside.grad).all()
    assert float(inside.grad[0, 3:7].abs().max()) == 0
    assert float(inside.grad[1].abs().max()) > 0
    elsewhere = logit.clone()
    elsewhere[0, 3:7] = 9.0
    assert float(loss(elsewhere, target, *extra)) == pytest.approx(float(value.detach()), rel=1e-6)


@pytest.mark.parametrize("term", ["cross_entropy", "ccc_loss", "focal"])
def test_a_batch_without_any_label_costs_nothing(term: str) -> None:
    logit, target = tensors(3)
    assert float(getattr(losses, term)(logit, torch.full_like(target, torch.nan))) == 0


def test_a_temperature_of_one_changes_nothing_and_a_high_one_flattens() -> None:
    prob = torch.tensor([0.02, 0.5, 0.9])
    assert torch.equal(losses.soften(prob, 1.0), prob)
    flat = losses.soften(prob, 4.0)
    want = torch.sigmoid(torch.logit(prob) / 4)
    torch.testing.assert_close(flat, want)
    assert float((flat - 0.5).abs().max()) < float((prob - 0.5).abs().max())


def test_a_label_as_uncertain_as_the_scale_counts_half() -> None:
    weight = losses.confidence(torch.tensor([0.0, 0.1, 0.3]), scale=0.1)
    torch.testing.assert_close(weight, torch.tensor([1.0, 0.5, 0.1]))


def test_ccc_loss_is_nought_at_the_target_one_at_the_mean_and_two_when_turned_round() -> None:
    target = torch.rand((4, 50, 2, 3), generator=torch.Generator().manual_seed(4)) * 0.8 + 0.1
    assert float(losses.ccc_loss(torch.logit(target), target)) == pytest.approx(0, abs=1e-3)
    mean = torch.logit(target.mean(dim=(0, 1), keepdim=True)).expand_as(target)
    assert float(losses.ccc_loss(mean, target)) == pytest.approx(1, abs=1e-3)
    turned = torch.logit((2 * target.mean(dim=(0, 1)) - target).clamp(0.01, 0.99))
    assert float(losses.ccc_loss(turned, target)) == pytest.approx(2, abs=0.05)


def test_ccc_loss_leaves_out_units_that_never_vary() -> None:
    logit, target = tensors(5)
    alone = losses.ccc_loss(logit[..., :3], target[..., :3])
    target[..., 3] = 0.4
    assert float(losses.ccc_loss(logit, target)) == pytest.approx(float(alone), rel=1e-5)


def test_focal_loss_without_focus_is_half_the_cross_entropy() -> None:
    logit, target = tensors(6)
    target = (target > 0.5).float()
    plain = F.binary_cross_entropy_with_logits(logit, target)
    assert float(losses.focal(logit, target, gamma=0, alpha=0.5)) == pytest.approx(0.5 * float(plain), rel=1e-5)


def test_focal_loss_makes_easy_frames_count_less_than_hard_ones() -> None:
    easy, hard = torch.full(SHAPE, 4.0), torch.full(SHAPE, -1.0)
    target = torch.ones(SHAPE)

    def shrink(logit: Tensor) -> float:
        return float(losses.focal(logit, target)) / float(losses.cross_entropy(logit, target))

    assert shrink(easy) < 0.01 * shrink(hard)


def test_frequency_weights_are_positive_and_favour_rare_units() -> None:
    weights = losses.frequency_weights(torch.tensor([0.5, 0.1, 0.01, 0.0, 1.0]))
    assert (weights > 0).all()
    assert weights[0] < weights[1] < weights[2] < weights[3]
    assert float(weights.mean()) == pytest.approx(1)


def test_the_temporal_term_is_nought_for_a_still_face_and_grows_with_change() -> None:
    logit, _ = tensors(7)
    assert float(losses.temporal(torch.ones(SHAPE))) == 0
    p = torch.sigmoid(logit).numpy()
    assert float(losses.temporal(logit)) == pytest.approx(float((np.diff(p, axis=1) ** 2).mean()), rel=1e-5)


def test_the_terms_add_up_to_the_loss_and_a_zero_weight_removes_one() -> None:
    logits = torch.randn(*SHAPE, 2, generator=torch.Generator().manual_seed(8))
    every = LossWeights(focal=0.3, weighted_regression=0.2, temporal=0.1, temperature=2.0)
    speaker = torch.zeros(SHAPE[0], SHAPE[1], SHAPE[3])
    terms = objective(logits, batch_of(8), speaker, torch.full((4,), 0.2), every)
    parts = [float(v) for k, v in terms.items() if k != "loss"]
    assert float(terms["loss"]) == pytest.approx(math.fsum(parts), rel=1e-5)
    assert all(p > 0 for p in parts)
    plain = LossWeights(soft=0.0, ccc=0.0, speaker_au=0.0)
    terms = objective(logits, batch_of(8), speaker, torch.full((4,), 0.2), plain)
    assert float(terms["loss"]) == pytest.approx(float(terms["hard"]))


def test_without_a_teacher_the_soft_term_costs_nothing() -> None:
    logits = torch.randn(*SHAPE, 2, generator=torch.Generator().manual_seed(9))
    terms = objective(logits, batch_of(9, soft=False), None, torch.full((4,), 0.2), LossWeights())
    assert float(terms["soft"]) == 0
    assert torch.isfinite(terms["loss"])


def test_an_evenly_unsure_teacher_teaches_the_same_as_a_sure_one() -> None:
    logits = torch.randn(*SHAPE, 2, generator=torch.Generator().manual_seed(10))
    sure, unsure = (
        objective(logits, batch_of(10, uncertainty=u), None, torch.full((4,), 0.2), LossWeights())["soft"]
        for u in (0.0, 0.2)
    )
    assert float(sure) == pytest.approx(float(unsure), rel=1e-5)


def test_the_eyes_are_not_taught_from_clips_that_are_blind() -> None:
    batch = batch_of(11)
    batch.present[0, :, 0] = 0
    speaker = torch.zeros(SHAPE[0], SHAPE[1], SHAPE[3], requires_grad=True)
    logits = torch.zeros(*SHAPE, 2)
    objective(logits, batch, speaker, torch.full((4,), 0.2), LossWeights())["loss"].backward()
    assert speaker.grad is not None
    assert float(speaker.grad[0].abs().max()) == 0
    assert float(speaker.grad[1].abs().max()) > 0
