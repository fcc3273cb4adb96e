"""The stochastic head draws reactions as training listeners had them: their spread, their tempo, their own seed."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from student import stochastic
from student.stochastic import Head, Reaction, draw, fit

Floats = NDArray[np.float32]
UNITS, FRAMES = 3, 600
CARRY = np.array([0.9, 0.95, 0.8])
STYLE = 0.6
"""Standard deviation of a listener's style in log-odds; of the rest: 1."""


def conversations(sessions: int, seed: int) -> tuple[list[Floats], list[Floats]]:
    """Predictions that wander, and truths about them: style, and AR(1) of which units 0 and 1 share half."""
    rng = np.random.default_rng(seed)
    predicted: list[Floats] = []
    true: list[Floats] = []
    mix = np.linalg.cholesky(np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1.0]]))
    for _ in range(sessions):
        level = -1 + 0.8 * np.sin(np.arange(FRAMES)[:, None] / 40 + rng.uniform(0, 6, UNITS))
        rest, z = np.empty((FRAMES, UNITS)), mix @ rng.standard_normal(UNITS)
        for t in range(FRAMES):
            rest[t] = z
            z = CARRY * z + np.sqrt(1 - CARRY**2) * (mix @ rng.standard_normal(UNITS))
        listener = level + STYLE * rng.standard_normal(UNITS) + rest
        predicted.append((1 / (1 + np.exp(-level))).astype(np.float32))
        true.append((1 / (1 + np.exp(-listener))).astype(np.float32))
    return predicted, true


@pytest.fixture(scope="module")
def head() -> Head:
    return fit(*conversations(40, seed=0))


@pytest.fixture(scope="module")
def curve() -> Floats:
    return conversations(1, seed=5)[0][0]


def test_temperature_nought_is_the_deterministic_prediction_bit_for_bit(head: Head, curve: Floats) -> None:
    drawn = draw(head, curve, name="s", count=3, temperature=0)
    np.testing.assert_array_equal(drawn, np.stack([curve] * 3))


def test_the_same_seed_gives_the_same_reactions_and_another_seed_others(head: Head, curve: Floats) -> None:
    first = draw(head, curve, name="s", count=2, seed=7)
    np.testing.assert_array_equal(first, draw(head, curve, name="s", count=2, seed=7))
    assert np.abs(first - draw(head, curve, name="s", count=2, seed=8)).max() > 0.1
    assert np.abs(first - draw(head, curve, name="t", count=2, seed=7)).max() > 0.1
    assert np.abs(first[0] - first[1]).max() > 0.1


def test_fewer_draws_are_the_first_of_more(head: Head, curve: Floats) -> None:
    np.testing.assert_array_equal(draw(head, curve, name="s", count=2), draw(head, curve, name="s", count=5)[:2])


def test_a_reaction_cut_anywhere_equals_the_whole(head: Head, curve: Floats) -> None:
    whole = Reaction(head, name="s", seed=1).follow(curve)
    parts = Reaction(head, name="s", seed=1)
    pieces = [parts.follow(curve[a:b]) for a, b in ((0, 1), (1, 2), (2, 300), (300, FRAMES))]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_no_later_prediction_reaches_an_earlier_frame_of_a_draw(head: Head, curve: Floats) -> None:
    other = curve.copy()
    other[200:] = 0.9
    before, after = (draw(head, c, name="s", count=2) for c in (curve, other))
    np.testing.assert_array_equal(before[:, :200], after[:, :200])
    assert np.abs(before[:, 200:] - after[:, 200:]).max() > 0.1


def test_the_planted_style_tempo_and_company_are_found(head: Head) -> None:
    np.testing.assert_allclose(head.carry, CARRY, atol=0.03)
    np.testing.assert_allclose(head.share, STYLE**2 / (1 + STYLE**2), atol=0.12)
    moment = head.moment @ head.moment.T
    assert moment[0, 1] == pytest.approx(0.5, abs=0.1)
    assert abs(moment[0, 2]) < 0.1


def test_draws_on_unseen_conversations_are_spread_as_listeners_are(head: Head) -> None:
    predicted, _ = conversations(20, seed=9)
    drawn = np.concatenate([draw(head, p, name=f"{i}", count=8) for i, p in enumerate(predicted)], axis=1)
    level = stochastic.log_odds(np.concatenate(predicted))
    noise = np.sqrt(1 + STYLE**2) * np.random.default_rng(1).standard_normal((8, *level.shape))
    listeners = 1 / (1 + np.exp(-level - noise))  # every frame another listener: the same distribution
    flat, wanted = drawn.reshape(-1, UNITS), listeners.reshape(-1, UNITS)
    np.testing.assert_allclose(flat.var(axis=0) / wanted.var(axis=0), 1, atol=0.12)
    for q in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(np.quantile(flat, q, axis=0), np.quantile(wanted, q, axis=0), atol=0.04)


def test_temperature_scales_the_deviation_in_log_odds(head: Head, curve: Floats) -> None:
    cool, warm = (draw(head, curve, name="s", count=1, temperature=t)[0] for t in (0.5, 1.0))
    gap = [stochastic.log_odds(x) - stochastic.log_odds(curve) for x in (cool, warm)]
    inside = (warm > 0.01) & (warm < 0.99)
    np.testing.assert_allclose(2 * gap[0][inside], gap[1][inside], atol=1e-3)


def test_draws_move_about_as_fast_as_the_listeners_they_were_fitted_on(head: Head) -> None:
    predicted, true = conversations(10, seed=3)
    drawn = np.concatenate([draw(head, p, name=f"{i}", count=1)[0] for i, p in enumerate(predicted)])
    steps = [np.abs(np.diff(x, axis=0)).mean() for x in (drawn, np.concatenate(true))]
    assert steps[0] / steps[1] == pytest.approx(1, abs=0.2)


def test_a_unit_nobody_annotated_keeps_its_prediction_and_gaps_do_no_harm() -> None:
    predicted, true = conversations(8, seed=2)
    for y in true:
        y[:, 2] = np.nan
        y[100:150, 0] = np.nan
    made = fit(predicted, true)
    drawn = draw(made, predicted[0], name="s", count=2)
    np.testing.assert_allclose(drawn[:, :, 2], np.stack([predicted[0][:, 2]] * 2), atol=1e-6)
    assert np.isfinite(drawn).all()
    assert drawn[:, :, 0].std() > 0.05


def test_one_session_is_enough_and_claims_no_style_of_its_own() -> None:
    predicted, true = conversations(1, seed=4)
    made = fit(predicted, true)
    assert np.isfinite(draw(made, predicted[0], name="s", count=1)).all()
    np.testing.assert_allclose(made.moment, np.eye(UNITS), atol=1e-3)


def test_a_saved_head_draws_the_same(head: Head, curve: Floats, tmp_path: Path) -> None:
    head.save(tmp_path / "stochastic.npz")
    again = Head.load(tmp_path / "stochastic.npz")
    np.testing.assert_array_equal(draw(again, curve, name="s", count=2), draw(head, curve, name="s", count=2))


def test_what_cannot_be_drawn_is_refused(head: Head, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training session has predictions"):
        fit([], [])
    with pytest.raises(ValueError, match="temperature: a number ≥ 0 is needed; got -1"):
        Reaction(head, name="s", temperature=-1)
    with pytest.raises(ValueError, match=r"no such file; python -m distill\.evaluate --samples 10 writes one"):
        Head.load(tmp_path / "none.npz")
