"""Smoothing calms what jitters, lets through what moves, and is what the textbooks say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from deploy.motion.smooth import USUAL_PER_S, Kalman, KalmanConfig, OneEuro, OneEuroConfig, Smoother, make

DT_S = 1 / 60
KINDS = ("one-euro", "kalman", "none")


def run(smoother: Smoother, rows: np.ndarray, dt_s: float = DT_S) -> np.ndarray:
    smoother.reset(rows[0])
    return np.array([smoother.step(row, dt_s) for row in rows])


def test_one_euro_that_never_opens_is_the_first_order_low_pass_of_scipy() -> None:
    signal = np.random.default_rng(0).random((200, 5))
    ours = run(OneEuro(5, OneEuroConfig(rest_hz=2.0, opening=0.0)), signal)
    weight = 2 * np.pi * 2.0 * DT_S / (1 + 2 * np.pi * 2.0 * DT_S)
    theirs, _ = lfilter([weight], [1, weight - 1], signal, axis=0, zi=(1 - weight) * signal[:1])
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_kalman_is_the_textbook_filter_in_matrices_at_uneven_ticks() -> None:
    rng, config = np.random.default_rng(1), KalmanConfig()
    smoother, state, cov = Kalman(1, config), np.zeros(2), np.diag([config.noise**2, 1.0])
    smoother.reset(np.zeros(1))
    for value, dt_s in zip(rng.random(100), rng.uniform(0.005, 0.05, 100), strict=True):
        move = np.array([[1, dt_s], [0, 1]])
        wander = config.wander**2 * np.array([[dt_s**3 / 3, dt_s**2 / 2], [dt_s**2 / 2, dt_s]])
        state, cov = move @ state, move @ cov @ move.T + wander
        gain = cov[:, 0] / (cov[0, 0] + config.noise**2)
        state, cov = state + gain * (value - state[0]), cov - np.outer(gain, cov[0])
        np.testing.assert_allclose(smoother.step(np.array([value]), dt_s), state[:1], rtol=1e-9)


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=60), st.floats(1e-3, 0.08))
def test_one_euro_never_leaves_the_range_of_what_it_was_given(rows: list[list[float]], dt_s: float) -> None:
    given_rows = np.array(rows)
    out = run(OneEuro(2), given_rows, dt_s)
    assert (out >= given_rows.min(0) - 1e-9).all()
    assert (out <= given_rows.max(0) + 1e-9).all()


@pytest.mark.parametrize("kind", KINDS[:2])
def test_jitter_at_rest_is_calmed_and_a_fast_smile_let_through(kind: str) -> None:
    jitter = 0.3 + 0.02 * np.random.default_rng(1).standard_normal((600, 1))
    assert run(make(kind, 1), jitter)[60:].std() < 0.8 * jitter[60:].std()
    smile = np.concatenate([np.zeros((60, 1)), np.ones((12, 1))])
    assert run(make(kind, 1), smile)[-1, 0] > 0.85, "a step must be followed within 200 ms"


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_begins_where_it_is_put_and_stays_there(kind: str) -> None:
    out = run(make(kind, 3), np.full((50, 3), 0.7))
    np.testing.assert_allclose(out, 0.7, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_movement_of_usual_speed_comes_out_no_later_than_the_filter_says(kind: str) -> None:
    ramp = USUAL_PER_S * DT_S * np.arange(120)[:, None]
    late_s = (ramp[-1, 0] - run(make(kind, 1), ramp)[-1, 0]) / USUAL_PER_S
    assert late_s <= make(kind, 1).lag_s() + DT_S
