"""CCC, Pearson, MAE, RMSE and skill against scipy and brute force; lagged mimicry; intervals over sessions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from dyad.metrics import agreement, baselines

Floats = NDArray[np.float32]


def curves(seed: int, frames: int = 200, units: int = 4) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    true = rng.random((frames, units), np.float32)
    return (0.5 * true + 0.5 * rng.random((frames, units), np.float32)).astype(np.float32), true


def lin_ccc(p: Floats, y: Floats) -> float:
    """Straight from the definition, float64."""
    p, y = p.astype(np.float64), y.astype(np.float64)
    covariance = np.mean((p - p.mean()) * (y - y.mean()))
    return float(2 * covariance / (p.var() + y.var() + (p.mean() - y.mean()) ** 2))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(3, 300))
def test_pearson_and_ccc_equal_scipy_and_the_definition(seed: int, frames: int) -> None:
    pred, true = curves(seed, frames)
    got = agreement.scores(agreement.sums(pred, true, true.mean(axis=0)))
    for a in range(true.shape[1]):
        p, y = pred[:, a].astype(np.float64), true[:, a].astype(np.float64)
        assert got.pearson[a] == pytest.approx(stats.pearsonr(p, y).statistic, abs=1e-9)
        assert got.ccc[a] == pytest.approx(lin_ccc(pred[:, a], true[:, a]), abs=1e-9)
        assert got.mae[a] == pytest.approx(np.abs(p - y).mean(), abs=1e-9)
        assert got.rmse[a] == pytest.approx(np.sqrt(np.mean((p - y) ** 2)), abs=1e-9)


def test_a_perfect_prediction_scores_one_and_the_reference_scores_zero_skill() -> None:
    _, true = curves(1)
    mean = true.mean(axis=0)
    perfect = agreement.scores(agreement.sums(true, true, mean))
    np.testing.assert_allclose(perfect.ccc, 1, atol=1e-9)
    np.testing.assert_allclose(perfect.skill, 1, atol=1e-9)
    constant = agreement.scores(agreement.sums(np.tile(mean, (len(true), 1)), true, mean))
    np.testing.assert_allclose(constant.skill, 0, atol=1e-6)
    np.testing.assert_allclose(constant.ccc, 0, atol=1e-6)
    assert np.isnan(constant.pearson).all()


def test_frames_without_annotation_change_no_score() -> None:
    pred, true = curves(2)
    holes = true.copy()
    holes[50:120, 1] = np.nan
    kept = np.r_[0:50, 120:200]
    got = agreement.ccc(pred, holes)
    assert got[1] == pytest.approx(lin_ccc(pred[kept, 1], true[kept, 1]), abs=1e-9)
    assert got[0] == pytest.approx(lin_ccc(pred[:, 0], true[:, 0]), abs=1e-9)


def test_a_unit_that_never_varies_is_skipped_and_counted() -> None:
    pred, true = curves(3)
    true[:, 2] = 0.3
    true[:, 3] = np.nan
    got = agreement.scores(agreement.sums(pred, true, np.nan_to_num(true[0])))
    assert np.isnan(got.ccc[2:]).all()
    assert np.isnan(got.skill[2:]).all()
    value, defined = agreement.macro(got.ccc)
    assert defined == 2
    assert value == pytest.approx(got.ccc[:2].mean())


def test_mimicry_leaves_a_unit_alone_that_nobody_annotated() -> None:
    speaker, listener = curves(5)
    listener[:, 1] = np.nan
    for mimic in baselines.fit_mimicry([speaker], [listener]):
        assert np.isfinite(mimic.predict(speaker)).all()
        assert (mimic.predict(speaker)[:, 1] == 0).all()


def test_a_mean_over_no_defined_unit_is_not_a_number() -> None:
    value, defined = agreement.macro(np.full(3, np.nan))
    assert np.isnan(value)
    assert defined == 0


def test_sums_of_two_sessions_score_as_their_concatenation() -> None:
    (p1, y1), (p2, y2) = curves(4, 90), curves(5, 130)
    reference = np.full(4, 0.4, np.float32)
    apart = agreement.sums(p1, y1, reference) + agreement.sums(p2, y2, reference)
    together = agreement.sums(np.concatenate([p1, p2]), np.concatenate([y1, y2]), reference)
    np.testing.assert_allclose(apart, together, rtol=1e-12)


def test_summed_skill_weighs_units_by_their_squared_error() -> None:
    pred, true = curves(6)
    mean = true.mean(axis=0)
    got = agreement.scores(agreement.sums(pred, true, mean))
    error = np.sum((pred.astype(np.float64) - true) ** 2)
    assert got.total_skill == pytest.approx(1 - error / np.sum((true.astype(np.float64) - mean) ** 2), abs=1e-9)


def test_mimicry_finds_the_planted_lag_and_line_of_each_unit() -> None:
    rng = np.random.default_rng(7)
    speakers = [rng.random((400, 2), np.float32) for _ in range(3)]
    planted = (12, 30)
    listeners = [
        np.stack([0.2 + 0.5 * baselines.lagged(s, lag)[:, a] for a, lag in enumerate(planted)], axis=1)
        for s in speakers
    ]
    least, matched = baselines.fit_mimicry(speakers, [listener.astype(np.float32) for listener in listeners])
    assert tuple(least.lags) == planted
    np.testing.assert_allclose(least.slope, 0.5, atol=1e-3)
    np.testing.assert_allclose(matched.offset, 0.2, atol=1e-3)
    np.testing.assert_allclose(least.predict(speakers[0]), listeners[0], atol=1e-3)


def test_mimicry_of_unrelated_units_falls_back_to_the_mean() -> None:
    rng = np.random.default_rng(8)
    speaker, listener = np.zeros((300, 1), np.float32), rng.random((300, 1), np.float32)
    least, _ = baselines.fit_mimicry([speaker], [listener])
    np.testing.assert_allclose(least.predict(speaker), listener.mean(), atol=1e-4)


def test_mimicry_never_reads_the_speakers_future() -> None:
    rng = np.random.default_rng(9)
    speaker = rng.random((100, 2), np.float32)
    changed = speaker.copy()
    changed[60:] = 0
    for lag in baselines.LAGS:
        np.testing.assert_array_equal(
            baselines.lagged(speaker, lag)[: 60 + lag], baselines.lagged(changed, lag)[: 60 + lag]
        )


@pytest.mark.parametrize("spread", [1e-2, 1e-5, 1e-7])
def test_a_curve_that_hardly_moves_keeps_nine_digits(spread: float) -> None:
    rng = np.random.default_rng(10)
    y = 0.5 + spread * rng.normal(size=(1000, 1))
    p = 0.5 + spread * rng.normal(size=(1000, 1)) + 0.5 * (y - 0.5)
    got = agreement.scores(agreement.sums(p, y, np.full(1, 0.5)))
    assert got.pearson[0] == pytest.approx(stats.pearsonr(p[:, 0], y[:, 0]).statistic, abs=1e-9)
    dp, dy = p - p.mean(), y - y.mean()
    concordance = 2 * np.mean(dp * dy) / (np.mean(dp**2) + np.mean(dy**2) + (p.mean() - y.mean()) ** 2)
    assert got.ccc[0] == pytest.approx(concordance, abs=1e-9)
    assert agreement.ccc(p, y)[0] == pytest.approx(concordance, abs=1e-9)


def test_one_step_of_a_floats_last_digit_is_a_movement_and_rounding_is_none() -> None:
    rng = np.random.default_rng(11)
    y = np.full((1000, 1), 0.3, np.float32)
    p = rng.random(y.shape).astype(np.float32)
    assert np.isnan(agreement.ccc(p, y)).all()
    for reference in (0.0, 0.05, 0.9):
        assert np.isnan(agreement.scores(agreement.sums(p, y, np.full(1, reference))).ccc).all()
    y[5] = np.nextafter(np.float32(0.3), np.float32(1))
    got = agreement.scores(agreement.sums(p, y, y[:1, 0]))
    plain = stats.pearsonr(p[:, 0].astype(float), y[:, 0].astype(float)).statistic
    assert got.pearson[0] == pytest.approx(plain, abs=1e-9)


def test_a_prediction_that_is_no_number_is_refused_by_session_unit_and_frame_where_it_is_scored() -> None:
    pred, true = curves(12)
    pred[33, 1], true[:20, 1] = np.nan, np.nan
    with pytest.raises(ValueError, match=r"prediction of s07: AU2 is nan at frame 33 .*leave the session out"):
        agreement.sums(pred, true, true[50], session="s07", units=("AU1", "AU2", "AU4", "AU5"))
    with pytest.raises(ValueError, match="channel 1 is nan at frame 33"):
        agreement.ccc(pred, true)
    true[33, 1] = np.nan
    assert np.isfinite(agreement.ccc(pred, true)).all()
    true[3, 2] = np.inf
    with pytest.raises(ValueError, match="label of the scored frames: channel 2 is inf at frame 3"):
        agreement.ccc(pred, true)
    with pytest.raises(ValueError, match="cut both to the same frames and units"):
        agreement.sums(pred, true[:, :1], true[0])
    with pytest.raises(ValueError, match="speaker of session 0: channel 1 is nan"):
        baselines.fit_mimicry([pred], [true])
