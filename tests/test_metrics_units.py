"""Scores per unit against scikit-learn, scipy and brute force, on random and degenerate inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats

from dyad.metrics import calibration, checks, classification, events, units

Floats = NDArray[np.float32]
HALF = np.full(5, 0.5)


def labelled(seed: int, frames: int = 300, count: int = 5) -> tuple[Floats, Floats, Floats, Floats]:
    """Activation probability, activation, predicted and true intensity, each [N, A]; rare units last."""
    rng = np.random.default_rng(seed)
    act = (rng.random((frames, count)) < np.linspace(0.5, 0.02, count)).astype(np.float32)
    act_prob = np.clip(0.5 * act + 0.6 * rng.random(act.shape) - 0.05, 0, 1).astype(np.float32)
    true = rng.random(act.shape).astype(np.float32)
    return act_prob, act, (0.4 * true + 0.5 * rng.random(act.shape)).astype(np.float32), true


def scored(seed: int, **changed: object) -> units.UnitScores:
    act_prob, act, prob, true = labelled(seed)
    return units.unit_scores(act_prob, act, prob, true, HALF, **changed)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 120))
def test_activity_equals_scikit_learn(seed: int, frames: int) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    act_prob, act, prob, true = labelled(seed, frames)
    got = units.unit_scores(act_prob, act, prob, true, HALF)
    for a in range(5):
        y, said = act[:, a] > 0.5, act_prob[:, a] >= 0.5
        for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score)):
            expected = score(y, said, zero_division=np.nan)
            np.testing.assert_allclose(getattr(got, name)[a], expected, atol=1e-9)
        assert np.isnan(got.f1[a]) == (not y.any())
        if y.any():
            assert got.f1[a] == pytest.approx(sk.f1_score(y, said), abs=1e-9)
            assert got.auprc[a] == pytest.approx(sk.average_precision_score(y, act_prob[:, a]), abs=1e-9)
        assert got.mae[a] == pytest.approx(sk.mean_absolute_error(true[:, a].astype(float), prob[:, a].astype(float)))
        assert got.rmse[a] ** 2 == pytest.approx(
            sk.mean_squared_error(true[:, a].astype(float), prob[:, a].astype(float))
        )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(3, 200), spread=st.sampled_from([1.0, 1e-3, 1e-6]))
def test_agreement_equals_scipy_and_the_definition_even_where_hardly_anything_moves(
    seed: int, frames: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    y = 0.5 + spread * rng.random(frames)
    p = 0.5 + spread * (0.6 * (y - 0.5) / spread + 0.4 * rng.random(frames))
    mae, rmse, pearson, ccc = units.agreement_of(p, y)
    assert mae == pytest.approx(np.abs(p - y).mean(), abs=1e-9)
    assert rmse == pytest.approx(np.sqrt(np.mean((p - y) ** 2)), abs=1e-9)
    assert pearson == pytest.approx(stats.pearsonr(p, y).statistic, abs=1e-9)
    covariance = np.cov(p, y, ddof=0)
    expected = 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (p.mean() - y.mean()) ** 2)
    assert ccc == pytest.approx(expected, abs=1e-9)


def test_a_constant_has_no_correlation_and_a_constant_truth_no_concordance() -> None:
    y, flat = np.random.default_rng(1).random(50), np.full(50, 0.1)
    assert units.agreement_of(flat, y)[2:] == (pytest.approx(np.nan, nan_ok=True), 0.0)
    assert np.isnan(units.agreement_of(y, flat)[2:]).all()
    mae, rmse, pearson, ccc = units.agreement_of(flat[:1], y[:1])
    assert mae == rmse == pytest.approx(abs(0.1 - y[0]))
    assert np.isnan([pearson, ccc]).all()
    assert np.isnan(units.agreement_of(flat, np.full(50, np.nan))).all()


def test_unlabelled_frames_change_no_score() -> None:
    act_prob, act, prob, true = labelled(2)
    whole = units.unit_scores(act_prob[:200], act[:200], prob[:200], true[:200], HALF)
    act[200:], true[200:] = np.nan, np.nan
    holes = units.unit_scores(act_prob, act, prob, true, HALF)
    for name in ("f1", "precision", "recall", "auprc", "ece", "event_f1", "mae", "rmse", "pearson", "ccc", "rate"):
        np.testing.assert_allclose(getattr(holes, name), getattr(whole, name), err_msg=name)


def test_macro_means_skip_what_is_undefined_and_say_how_many_are_left() -> None:
    act_prob, act, prob, true = labelled(3)
    act[:, 1], true[:, 2] = 0, 0.3
    got = units.unit_scores(act_prob, act, prob, true, HALF)
    means = got.macro()
    assert means["f1"] == (pytest.approx(np.delete(got.f1, 1).mean()), 4)
    assert means["ccc"] == (pytest.approx(np.delete(got.ccc, 2).mean()), 4)
    assert means["mae"][1] == 5


def test_units_are_grouped_by_how_often_they_fire() -> None:
    rate = np.array([0.5, 0.2, 0.1, 0.05, 0.01, np.nan])
    assert units.frequency_groups(rate) == {"high": [0, 1], "mid": [2, 3], "low": [4]}
    got = scored(4)
    groups = got.by_frequency()
    of = units.frequency_groups(got.rate)
    assert sorted(a for part in of.values() for a in part) == list(range(5))
    assert groups["high"]["mae"] == (pytest.approx(got.mae[of["high"]].mean()), len(of["high"]))
    fixed = got.by_frequency(rate[:5])
    assert fixed["low"]["rmse"] == (pytest.approx(got.rmse[4]), 1)
    with pytest.raises(ValueError, match="0 ≤ low ≤ high ≤ 1"):
        units.frequency_groups(rate, high=0.1, low=0.5)


def test_a_group_without_units_has_no_mean() -> None:
    value, defined = scored(5).by_frequency(high=1.0, low=0.0)["low"]["f1"]
    assert np.isnan(value)
    assert defined == 0


def test_thresholds_come_from_other_frames_than_the_scored_ones() -> None:
    act_prob, act, prob, true = labelled(6, 600)
    tuned = units.tune_thresholds(act_prob[:300], act[:300])
    for a in range(5):
        assert tuned[a] == classification.best_threshold(act_prob[:300, a], act[:300, a])
    better = units.unit_scores(act_prob[:300], act[:300], prob[:300], true[:300], tuned)
    plain = units.unit_scores(act_prob[:300], act[:300], prob[:300], true[:300], np.full(5, 0.9))
    assert (better.f1 >= plain.f1).all()


def test_calibration_error_equals_the_bin_by_bin_sum() -> None:
    act_prob, act, *_ = labelled(7)
    p, y = act_prob[:, 0].astype(np.float64), act[:, 0]
    total = 0.0
    for low in range(10):
        inside = (p >= low / 10) & ((p < (low + 1) / 10) | (low == 9))
        if inside.any():
            total += inside.mean() * abs(p[inside].mean() - y[inside].mean())
    assert calibration.expected_error(p, y) == pytest.approx(total, abs=1e-9)


def test_calibration_error_knows_its_extremes_and_its_last_bin() -> None:
    assert calibration.expected_error(np.array([0.85, 1.0]), np.array([1.0, 0.0])) == pytest.approx((0.15 + 1) / 2)
    assert calibration.expected_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0
    assert calibration.expected_error(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1
    assert np.isnan(calibration.expected_error(np.array([0.5]), np.array([np.nan])))
    with pytest.raises(ValueError, match="apply the sigmoid first"):
        calibration.expected_error(np.array([1.5]), np.array([1.0]))


def test_calibration_sums_add_up_over_sessions() -> None:
    act_prob, act, *_ = labelled(8)
    parts = calibration.gaps(act_prob[:100], act[:100]) + calibration.gaps(act_prob[100:], act[100:])
    assert calibration.error_of(parts) == pytest.approx(calibration.expected_error(act_prob, act), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), tolerance=st.integers(0, 8))
def test_as_many_events_match_as_the_best_assignment_allows(seed: int, tolerance: int) -> None:
    rng = np.random.default_rng(seed)
    guessed, true = (np.sort(rng.choice(60, rng.integers(0, 12), replace=False)) for _ in range(2))
    near = np.abs(guessed[:, None] - true[None]) <= tolerance
    rows, columns = optimize.linear_sum_assignment(~near)
    assert events.matches(guessed, true, tolerance) == int(near[rows, columns].sum())


def test_an_event_counts_once_within_the_tolerance() -> None:
    act = np.zeros(100)
    act[[10, 11, 12, 40, 41, 70]] = 1
    guess = np.zeros(100)
    guess[[12, 13, 14, 50, 71]] = 1
    found = events.event_scores(guess, act, 2)
    assert (found.matched, found.guessed, found.true) == (2, 3, 3)
    assert found.f1 == pytest.approx(2 / 3)
    assert events.event_scores(guess, act, 0).matched == 0
    assert events.event_scores(act, act, 0).f1 == 1


def test_no_event_has_no_score() -> None:
    nothing = events.event_scores(np.zeros(20), np.zeros(20), 2)
    assert np.isnan([nothing.precision, nothing.recall, nothing.f1]).all()
    alarm = np.zeros(20)
    alarm[5] = 1
    assert events.event_scores(alarm, np.zeros(20), 2).precision == 0
    with pytest.raises(ValueError, match="one unit of one session"):
        events.event_scores(alarm, alarm[1:], 2)


def test_frames_without_a_label_hold_no_event() -> None:
    act = np.zeros(30)
    act[20] = 1
    act[:10] = np.nan
    guess = np.zeros(30)
    guess[[5, 20]] = 1
    found = events.event_scores(guess, act, 1)
    assert (found.matched, found.guessed, found.true) == (1, 1, 1)


def test_no_event_spans_two_sessions() -> None:
    act_prob, act, prob, true = (x[:20] for x in labelled(9))
    act[:], act_prob[:] = 0, 0.1
    act[8:12], act_prob[8:12] = 1, 0.9
    joined = units.unit_scores(act_prob, act, prob, true, HALF, tolerance_frames=0)
    apart = units.unit_scores(act_prob, act, prob, true, HALF, tolerance_frames=0, session_ends=[10])
    np.testing.assert_array_equal(joined.event_f1, 1)
    np.testing.assert_array_equal(apart.event_f1, 1)
    act[10:12] = 0
    act_prob[8:10] = 0.1
    crossed = units.unit_scores(act_prob, act, prob, true, HALF, tolerance_frames=2, session_ends=[10])
    np.testing.assert_array_equal(crossed.event_f1, 0)


def test_a_prediction_that_is_not_finite_is_refused_by_session_unit_and_frame() -> None:
    act_prob, act, prob, true = labelled(10)
    prob[41, 3] = np.inf
    names = ("AU1", "AU2", "AU4", "AU5", "AU6")
    with pytest.raises(ValueError, match="prediction of s042: AU5 is inf at frame 41"):
        units.unit_scores(act_prob, act, prob, true, HALF, session="s042", units=names)
    checks.require_finite(true, session="s042")


def test_channels_of_the_challenge_have_its_names() -> None:
    assert len(checks.REACT_CHANNELS) == 25
    assert checks.channel_names(25)[15:17] == ("valence", "arousal")
    assert checks.channel_names(2) == ("channel 0", "channel 1")


def test_several_sessions_one_after_the_other_are_named_and_their_frames_counted_from_their_start() -> None:
    act_prob, act, prob, true = labelled(11)
    prob[141, 3] = np.nan
    names = ("AU1", "AU2", "AU4", "AU5", "AU6")
    ends, ids = (100, 250, 300), ("s01", "s02", "s03")
    with pytest.raises(ValueError, match="prediction of s02: AU5 is nan at frame 41 "):
        units.unit_scores(act_prob, act, prob, true, HALF, session_ends=ends, session_ids=ids, units=names)
    with pytest.raises(ValueError, match="session 1 of the scored frames: channel 3 is nan at frame 41 "):
        units.unit_scores(act_prob, act, prob, true, HALF, session_ends=ends[:2])
    prob[141, 3], act_prob[260, 0] = 0.5, 1.5
    with pytest.raises(ValueError, match=r"of s03: AU1 is 1.5 at frame 10 .*apply the sigmoid first"):
        units.unit_scores(act_prob, act, prob, true, HALF, session_ends=ends, session_ids=ids, units=names)
    act_prob[260, 0], true[99, 4] = 0.5, np.inf
    with pytest.raises(ValueError, match="label of s01: AU6 is inf at frame 99"):
        units.unit_scores(act_prob, act, prob, true, HALF, session_ends=ends, session_ids=ids, units=names)


def test_sessions_or_shapes_that_do_not_fit_are_refused() -> None:
    act_prob, act, prob, true = labelled(12)
    for ends in ([30, 10], [-5], [301]):
        with pytest.raises(ValueError, match="session_ends that rise from 0 to 300"):
            units.unit_scores(act_prob, act, prob, true, HALF, session_ends=ends)
    with pytest.raises(ValueError, match="one name for each of 2 sessions is needed; got 3"):
        units.unit_scores(act_prob, act, prob, true, HALF, session_ends=[9], session_ids=("a", "b", "c"))
    with pytest.raises(ValueError, match=r"thresholds \[5\] are needed, one per unit; got \[1\]"):
        units.unit_scores(act_prob, act, prob, true, HALF[:1])
    with pytest.raises(ValueError, match=r"got \[300, 5\], \[300, 5\], \[300, 5\], \[40, 5\]; cut all"):
        units.unit_scores(act_prob, act, prob, true[:40], HALF)
    with pytest.raises(ValueError, match="and 2 names"):
        units.unit_scores(act_prob, act, prob, true, HALF, units=("AU1", "AU2"))


def test_no_frame_has_no_score() -> None:
    nothing = units.unit_scores(*(x[:0] for x in labelled(13)), HALF)
    assert all(np.isnan(value) and not defined for value, defined in nothing.macro().values())
    assert (events.combine([]).matched, events.combine([]).true) == (0, 0)


def test_every_score_of_a_unit_refuses_what_is_no_number_by_its_frame() -> None:
    act_prob, act, prob, true = labelled(14)
    act_prob[7, 1], prob[7, 1], act[7, 1] = np.nan, np.nan, 1
    for score in (
        lambda: events.event_scores(act_prob[:, 1], act[:, 1], 2),
        lambda: calibration.expected_error(act_prob[:, 1], act[:, 1]),
        lambda: units.agreement_of(prob[:, 1], true[:, 1]),
    ):
        with pytest.raises(ValueError, match="of the scored frames: nan at frame 7"):
            score()
    with pytest.raises(ValueError, match="probability of val: AU2 is nan at frame 7"):
        units.tune_thresholds(act_prob, act, session="val", units=("AU1", "AU2", "AU4", "AU5", "AU6"))
