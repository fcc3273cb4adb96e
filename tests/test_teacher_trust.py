"""Answers are trusted as far as they deserve: shrunk to the base rates, and folded into the read-out they come from."""

import numpy as np
import pytest
import torch

from teacher import trust
from teacher.heads import ReadOut

BASE = trust.base_odds(torch.tensor([0.1, 0.3, 0.02]), torch.tensor([0.2, 0.0, 1.0]))


def test_base_odds_are_those_of_the_rates_and_finite_for_units_that_never_or_always_act() -> None:
    assert torch.sigmoid(BASE)[:, 0].tolist() == pytest.approx([0.1, 0.3, 0.02])
    assert torch.isfinite(BASE).all()


def test_no_trust_is_the_mean_predictor_and_full_trust_the_answer() -> None:
    logits = torch.randn(5, 4, 3, 2)
    torch.testing.assert_close(trust.shrink(logits, BASE, 0.0), BASE.expand_as(logits))
    torch.testing.assert_close(trust.shrink(logits, BASE, 1.0), logits)


@pytest.mark.parametrize("true_share", [0.0, 0.4, 1.0])
def test_the_share_that_made_the_targets_is_found_per_kind(true_share: float) -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(400, 4, 3, 2)
    target = torch.sigmoid(trust.shrink(logits, BASE, torch.tensor([true_share, 0.7])))
    target[:100, :, 0] = torch.nan
    halves = trust.losses(logits[:150], target[:150], BASE) + trust.losses(logits[150:], target[150:], BASE)
    torch.testing.assert_close(halves, trust.losses(logits, target, BASE))
    places, loss = trust.best(halves)
    assert [trust.SHARES[k] for k in places] == [true_share, 0.7]
    known = ~torch.isnan(target)
    p = torch.nan_to_num(target).double().clamp(1e-12, 1 - 1e-12)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    want = [(entropy[..., k] * known[..., k]).sum() / known[..., k].sum() for k in (0, 1)]
    assert loss == pytest.approx(float(np.sum(want)), rel=1e-4)


def test_what_nobody_annotated_is_left_as_the_model_says_it() -> None:
    places, loss = trust.best(trust.losses(torch.randn(5, 4, 3, 2), torch.full((5, 4, 3, 2), torch.nan), BASE))
    assert ([trust.SHARES[k] for k in places], loss) == ([1.0, 1.0], 0.0)


def test_a_folded_read_out_answers_as_the_shrunk_one() -> None:
    torch.manual_seed(1)
    read_out = ReadOut(12, 2, units=3, horizons=4, token_width=5, width=8, span=3, dropout=0.0).eval()
    with torch.no_grad():
        read_out.second_bias.normal_()
    features, share = torch.randn(2, 6, 8), torch.tensor([0.3, 0.8])
    with torch.no_grad():
        want = trust.shrink(read_out.heads(features), BASE, share)
        named = {f"read_out.{k}": v for k, v in read_out.state_dict().items()}
        folded = trust.fold(named | {"thinker.x": torch.ones(1)}, BASE, share)
        read_out.load_state_dict({k.removeprefix("read_out."): v for k, v in folded.items() if "read_out" in k})
        torch.testing.assert_close(read_out.heads(features), want)
    assert folded["thinker.x"].item() == 1
