"""The terms of the tuning loss: against other implementations, with gaps, and what a frequency weight must not do."""

import numpy as np
import pytest
import torch

from dyad.metrics import agreement
from teacher import losses
from teacher.loss_weights import LossWeights

ALL_ON = LossWeights(cross_entropy=1, ccc=1, regression=1, focal=1, temporal=1)


def test_loss_ignores_what_was_not_annotated_in_either_target() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(2, 30, 4, 3, 2)).astype(np.float32)).requires_grad_()
    prob = torch.from_numpy(rng.uniform(size=(2, 30, 4, 3)).astype(np.float32))
    act = (prob > 0.5).float()
    prob[..., 0], act[..., 1] = torch.nan, torch.nan
    loss = losses.listener_terms(logits, prob, act, ALL_ON, torch.tensor([0.1, 0.2, 0.3]))["listener"]
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert (logits.grad[..., 0, 0] == 0).all()
    assert (logits.grad[..., 1, 1] == 0).all()
    assert (logits.grad[..., 0, 1] != 0).all()
    assert (logits.grad[..., 2, :] != 0).all()


@pytest.mark.parametrize("known", [0, 1])
def test_every_term_is_finite_with_nothing_or_one_cell_annotated_and_at_any_log_odds(known: int) -> None:
    target = torch.full((1, 5, 2, 3), torch.nan)
    target[0, 0, 0, :known] = 1.0
    for size in (0.0, 1e4):
        logits = torch.full((1, 5, 2, 3, 2), size, requires_grad=True)
        terms = losses.listener_terms(logits, target, target, ALL_ON, torch.zeros(3))
        terms = losses.with_speaker(terms, logits[:, :, 0, :, 0], torch.full((1, 5, 3), torch.nan), 1.0)
        terms["loss"].backward()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        assert all(torch.isfinite(v) for v in terms.values())


def test_frequency_weights_are_positive_finite_and_fall_with_frequency() -> None:
    frequency = torch.linspace(0, 1, 101)
    weights = losses.frequency_weights(frequency)
    assert torch.isfinite(weights).all()
    assert (weights > 0).all()
    assert (weights.diff() < 0).all()
    assert weights.mean().item() == pytest.approx(1)
    naive = 1 / torch.log(torch.tensor([0.05, 0.5, 1.0]) + 1e-3)  # the requirement's own formula
    assert (naive[:2] < 0).all()
    assert naive[1].abs() > naive[0].abs()


def test_terms_equal_those_of_independent_implementations() -> None:
    from torchvision.ops import sigmoid_focal_loss

    rng = np.random.default_rng(1)
    logit = torch.from_numpy(rng.normal(size=(2, 40, 3, 4)).astype(np.float32))
    target = torch.from_numpy(rng.uniform(size=(2, 40, 3, 4)).astype(np.float32))
    prob = torch.sigmoid(logit)
    want = np.mean([
        agreement.ccc(prob[:, :, h].reshape(80, 4).numpy(), target[:, :, h].reshape(80, 4).numpy()) for h in range(3)
    ])  # fmt: skip
    assert losses.ccc_loss(logit, target).item() == pytest.approx(1 - want, abs=1e-4)
    focal = sigmoid_focal_loss(logit, (target > 0.5).float(), alpha=0.25, gamma=2.0, reduction="mean")
    assert losses.focal(logit, (target > 0.5).float()).item() == pytest.approx(focal.item(), rel=1e-5)
    brute = np.mean((np.diff(prob.numpy(), axis=1)) ** 2)
    assert losses.temporal(logit, target).item() == pytest.approx(brute, rel=1e-5)
    weights = torch.tensor([4.0, 2.0, 1.0, 1.0])
    brute = np.average(((prob - target).numpy() ** 2).mean(axis=(0, 1, 2)), weights=weights.numpy())
    assert losses.weighted_squared_error(logit, target, weights).item() == pytest.approx(brute, rel=1e-5)


def test_a_unit_annotated_in_one_window_counts_as_much_as_one_annotated_in_all() -> None:
    logit, target = torch.zeros(4, 10, 1, 2), torch.ones(4, 10, 1, 2)
    logit[..., 0] = 3.0
    target[1:, ..., 0] = torch.nan
    both = [torch.nn.functional.softplus(torch.tensor(-x)).item() for x in (3.0, 0.0)]
    assert losses.cross_entropy(logit, target).item() == pytest.approx(np.mean(both))


@pytest.mark.parametrize("wrong", [{"ccc": -1.0}, {"cross_entropy": 0.0, "ccc": 0.0}, {"speaker_au": -0.1}])
def test_weights_that_reward_errors_or_ask_for_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="loss weights ≥ 0"):
        LossWeights(**wrong)
