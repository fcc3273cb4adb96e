"""The challenge's scores against a plain pair-by-pair implementation and known expectations."""

import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg

from dyad.metrics import frechet, react, spread, synchrony, warping, warping_kernel

Floats = NDArray[np.float32]
DEGENERATE = (
    "nothing",
    "constant",
    "nearly constant",
    "starts late",
    "ends early",
    "equal",
    "binary",
    "periodic",
    "spike",
)


def reactions(
    seed: int, n: int = 4, k: int = 3, frames: int = 70
) -> tuple[Floats, Floats, Floats, NDArray[np.float64]]:
    """Predictions that follow noisy targets that follow the speakers, and a matrix of neighbours."""
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.normal(0, 0.05, (n, frames + 20, 25)), axis=1) + 0.5
    speaker, target = smooth[:, 20:], smooth[:, 10:-10] + rng.normal(0, 0.02, (n, frames, 25))
    pred = np.stack([smooth[:, 20 - lag : frames + 20 - lag] for lag in range(5, 5 + k)], axis=1)
    pred = pred + rng.normal(0, 0.1, pred.shape)
    neighbours = np.maximum(np.eye(n), rng.random((n, n)) < 0.4)
    return pred.astype(np.float32), target.astype(np.float32), speaker.astype(np.float32), neighbours


def spoil(kind: str, x: Floats, seed: int = 0) -> Floats:
    """Sequences [..., T, D] with two channels made awkward."""
    x, rng = x.copy(), np.random.default_rng(seed)
    frames = x.shape[-2]
    if kind == "constant":
        x[..., 3], x[..., 16] = 0.1, 0.7
    elif kind == "nearly constant":
        x[..., 3] = (0.3 + 1e-4 * rng.random(x.shape[:-1])).astype(np.float32)
        x[..., 5] = 0.3
        x[..., frames // 2, 5] = np.float32(0.3) + np.float32(1e-6)
    elif kind == "starts late":
        x[..., : frames - 4, 7] = 0
    elif kind == "ends early":
        x[..., 5:, 7] = 0
    elif kind == "equal":
        x[...] = x.reshape(-1, *x.shape[-2:])[0]
    elif kind == "binary":
        x[..., :15] = x[..., :15] > 0.5
    elif kind == "periodic":
        x[...] = np.sin(2 * np.pi * np.arange(frames) / 8)[:, None]
    elif kind == "spike":
        x[..., 2] = (1e-5 * rng.random(x.shape[:-1])).astype(np.float32)
        x[..., 1, 2] = 1
    return x


def plain_ccc(pred: Floats, true: Floats) -> float:
    """Channel by channel, in the reference's number formats."""
    values = []
    for p, y in zip(pred.T, true.T, strict=True):
        covariance = np.cov(y, p)
        with np.errstate(divide="ignore", invalid="ignore"):
            r = np.clip(
                np.nan_to_num(covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance))))[0, 1], -1, 1
            )
        values.append(2 * r * np.std(y) * np.std(p) / (np.var(y) + np.var(p) + (np.mean(y) - np.mean(p)) ** 2 + 1e-8))
    return float(np.mean(values))


def plain_dtw(x: Floats, y: Floats) -> float:
    """The textbook's double loop."""
    cost = np.square(x.astype(np.float64)[:, None] - y.astype(np.float64)[None]).sum(axis=-1)
    path = np.full((len(x) + 1, len(y) + 1), np.inf)
    path[0, 0] = 0
    for i in range(len(x)):
        for j in range(len(y)):
            path[i + 1, j + 1] = cost[i, j] + min(path[i, j], path[i, j + 1], path[i + 1, j])
    return float(np.sqrt(path[-1, -1]))


def plain_offset(pred: Floats, speaker: Floats, max_lag: int) -> int:
    """One `corrcoef` per lag and channel, averaged and maximised by torch in float32."""
    curve = []
    for lag in range(-max_lag, max_lag + 1):
        a, b = (pred[:lag], speaker[-lag:]) if lag < 0 else (pred[lag:], speaker[: max(len(speaker) - lag, 0)])
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            r = [float(np.corrcoef(a[:, d], b[:, d])[0, 1]) for d in range(a.shape[1])]
        curve.append(torch.mean(torch.tensor(r, dtype=torch.float32)))
    return max_lag - int(torch.argmax(torch.stack(curve)))


@pytest.mark.parametrize("kind", DEGENERATE)
def test_correlation_equals_the_pair_by_pair_computation(kind: str) -> None:
    pred, target, _, neighbours = reactions(1)
    pred, target = spoil(kind, pred), spoil(kind, target, 1)
    best = react.best_concordance(pred, target, neighbours)
    for i, k in np.ndindex(*best.shape):
        plain = max(plain_ccc(pred[i, k], target[j]) for j in np.flatnonzero(neighbours[i]))
        assert best[i, k] == pytest.approx(plain, abs=1e-9)
    assert react.frcorr(pred, target, neighbours) == pytest.approx(best.mean(axis=0).sum(), abs=1e-12)


def test_a_small_variance_keeps_the_references_digits() -> None:
    pred, target, _, neighbours = reactions(2)
    pred, target = 0.5 + 1e-3 * pred, 0.5 + 1e-3 * target
    best = react.best_concordance(pred, target, np.eye(4))
    assert best[0, 0] == pytest.approx(plain_ccc(pred[0, 0], target[0]), abs=1e-9)
    assert react.frcorr(pred, target, neighbours) >= react.frcorr(pred, target, np.eye(4))


def test_more_neighbours_than_a_block_holds_give_the_same_best(monkeypatch: pytest.MonkeyPatch) -> None:
    pred, target, _, _ = reactions(3, n=7)
    whole = react.best_concordance(pred, target, np.ones((7, 7)))
    monkeypatch.setattr(react, "BLOCK", 2)
    np.testing.assert_allclose(react.best_concordance(pred, target, np.ones((7, 7))), whole, atol=1e-12)


def test_the_truth_scores_one_per_moving_channel_and_distance_zero() -> None:
    _, target, _, neighbours = reactions(4)
    target = spoil("constant", target)
    pred = np.repeat(target[:, None], 3, axis=1)
    assert react.frdist(pred, target, neighbours) == 0
    assert react.frcorr(pred, target, neighbours) == pytest.approx(3 * 23 / 25, abs=1e-5)
    assert react.frcorr(pred, target, neighbours, per_prediction=True) == pytest.approx(23 / 25, abs=1e-5)
    assert react.frcorr(pred, target, neighbours, per_prediction=True, skip_constant=True) == pytest.approx(1, abs=1e-5)


def test_nothing_that_moves_has_no_correlation_rather_than_none() -> None:
    still = np.full((2, 3, 20, 25), 0.5, np.float32)
    assert react.frcorr(still, still[:, 0], np.eye(2)) == 0
    assert np.isnan(react.frcorr(still, still[:, 0], np.eye(2), skip_constant=True))


@pytest.mark.parametrize("kind", ["nothing", "binary", "equal", "periodic"])
def test_distance_equals_the_pair_by_pair_computation(kind: str) -> None:
    pred, target, _, neighbours = reactions(5, n=3, k=2, frames=24)
    pred, target = spoil(kind, pred), spoil(kind, target, 1)
    got = react.nearest_distance(pred, target, neighbours)
    for i, k in np.ndindex(*got.shape):
        plain = min(
            sum(w * plain_dtw(pred[i, k][:, a:b], target[j][:, a:b]) for a, b, w in react.GROUPS)
            for j in np.flatnonzero(neighbours[i])
        )
        assert got[i, k] == pytest.approx(plain, abs=1e-9)
    total = react.frdist(pred, target, neighbours)
    assert react.frdist(pred, target, neighbours, per_prediction=True) == pytest.approx(total / 2, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 14), m=st.integers(1, 14), channels=st.integers(1, 9))
def test_every_inner_loop_gives_the_textbooks_distance(seed: int, n: int, m: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.random((n, channels)).astype(np.float32), rng.random((m, channels)).astype(np.float32)
    plain = plain_dtw(x, y)
    assert warping.dtw(x, y) == pytest.approx(plain, abs=1e-9)
    padded = np.zeros((n, 12)), np.zeros((12, m))
    padded[0][:, :channels], padded[1][:channels] = x, y.T
    for loop in (warping.squared_distance, warping_kernel.squared_distance):
        assert loop(*padded, np.inf) == pytest.approx(plain**2, abs=1e-9)
        assert loop(*padded, plain**2 * (1 + 1e-9)) == pytest.approx(plain**2, abs=1e-9)
        assert loop(*padded, plain**2 * 0.99 - 1e-12) == np.inf


def test_machine_code_and_numpy_agree_to_the_last_digit() -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(6)
    for n, m in ((60, 60), (1, 40), (603, 300)):
        x, y = rng.random((n, 8)), rng.random((8, m))
        assert warping_kernel.compiled()(x, y, np.inf) == warping.squared_distance(x, y, np.inf)


@pytest.mark.parametrize("kind", DEGENERATE)
def test_offsets_equal_the_lag_by_lag_computation(kind: str) -> None:
    pred, _, speaker, _ = reactions(7, n=2, k=2)
    pred, speaker = spoil(kind, pred), spoil(kind, speaker, 1)
    got = synchrony.synchrony(pred, speaker).offset
    for i, k in np.ndindex(*got.shape):
        assert got[i, k] == plain_offset(pred[i, k], speaker[i], 49)


@pytest.mark.parametrize("kind", ["starts late", "ends early", "nearly constant", "spike"])
def test_offsets_are_the_references_when_only_one_of_the_two_is_awkward(kind: str) -> None:
    pred, _, speaker, _ = reactions(21, n=2, k=1)
    for x, y in ((spoil(kind, pred), speaker), (pred, spoil(kind, speaker))):
        got = synchrony.synchrony(x, y).offset
        assert got.tolist() == [[plain_offset(x[i, 0], y[i], 49)] for i in range(2)]


def test_a_spike_outside_the_window_leaves_its_correlation_exact() -> None:
    rng = np.random.default_rng(22)
    x, y = (1e-7 * rng.random((2, 80, 1))).astype(np.float32)
    x[1] = 1
    r = synchrony.correlations(x[None], y, 10)[0, 0]
    for lag in range(-10, 11):
        a, b = (x[:lag], y[-lag:]) if lag < 0 else (x[lag:], y[: 80 - lag])
        assert r[lag + 10] == pytest.approx(np.corrcoef(a[:, 0], b[:, 0])[0, 1], abs=1e-9)


def test_a_clip_shorter_than_the_lags_has_the_references_offset() -> None:
    pred, _, speaker, _ = reactions(8, n=1, k=2, frames=30)
    assert synchrony.synchrony(pred, speaker).offset.tolist() == [[plain_offset(p, speaker[0], 49) for p in pred[0]]]
    assert react.frsyn(pred, speaker) == 49


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 80))
def test_a_float32_mean_has_torchs_digits(seed: int, count: int) -> None:
    values = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    assert synchrony.float32_mean(values.tolist()) == torch.mean(torch.from_numpy(values)).item()


def test_one_silent_channel_moves_the_offset_to_its_end_but_not_the_lag() -> None:
    pred, _, speaker, _ = reactions(9)
    clean = synchrony.synchrony(pred, speaker)
    np.testing.assert_array_equal(clean.lag_ms, 40 * np.tile([5, 6, 7], (4, 1)))
    np.testing.assert_array_equal(clean.offset, -np.tile([5, 6, 7], (4, 1)))
    assert react.frsyn(pred, speaker) == 6
    assert react.frsyn(pred, speaker, first_prediction=True) == 5
    silent = synchrony.synchrony(spoil("constant", pred), speaker)
    assert (silent.offset == 49).all()
    np.testing.assert_array_equal(silent.lag_ms, clean.lag_ms)
    np.testing.assert_allclose(silent.undefined, 2 / 25)


def test_a_face_that_never_moves_has_no_lag() -> None:
    _, _, speaker, _ = reactions(10)
    found = synchrony.synchrony(np.full((4, 1, 70, 25), 0.2, np.float32), speaker)
    assert np.isnan(found.lag_ms).all()
    assert (found.undefined == 1).all()


def test_uniform_noise_has_the_spreads_of_theory() -> None:
    pred = np.random.default_rng(11).random((12, 10, 200, 25)).astype(np.float32)
    assert react.frdvs(pred) == pytest.approx(1 / 6, rel=5e-3)
    assert react.frdiv(pred) == pytest.approx(1 / 6, rel=5e-3)
    assert react.frvar(pred) == pytest.approx(1 / 12, rel=5e-3)


@pytest.mark.parametrize("n", [3, 30])
def test_spreads_equal_the_sums_over_all_pairs(n: int) -> None:
    pred, *_ = reactions(12, n=n, frames=8)
    wide = pred.astype(np.float64)
    across = sum(np.square(wide[a] - wide[b]).sum() for a in range(n) for b in range(n))
    assert react.frdvs(pred) == pytest.approx(across / (n * (n - 1) * 3 * 8 * 25), rel=1e-5)
    within = sum(np.square(wide[:, a] - wide[:, b]).sum() for a in range(3) for b in range(3))
    assert react.frdiv(pred) == pytest.approx(within / (n * 3 * 2 * 8 * 25), rel=1e-5)
    assert react.frvar(pred) == pytest.approx(np.var(wide, axis=2, ddof=1).mean(), rel=1e-9)


def test_a_single_prediction_has_no_diversity_and_equal_ones_have_none() -> None:
    pred, *_ = reactions(13)
    assert react.frdiv(pred[:, :1]) == 0
    assert react.frdiv(np.repeat(pred[:, :1], 3, axis=1)) == 0
    assert react.frdvs(np.repeat(pred[:1], 4, axis=0)) == 0
    assert np.isnan(react.frdvs(pred[:1]))
    assert np.isnan(react.frvar(pred[:, :, :1]))


def test_few_sequences_are_added_as_the_reference_adds_them() -> None:
    rows = np.random.default_rng(14).random((5, 3000)).astype(np.float32)
    squares = torch.cdist(torch.from_numpy(rows), torch.from_numpy(rows)) ** 2
    assert spread.squared_gaps(rows) == pytest.approx(float(squares.double().sum()), rel=1e-7)


def peak_bytes(n: int) -> int:
    """Memory that the scores of `n` items take at most, each with three appropriate reactions anywhere."""
    rng = np.random.default_rng(15)
    pred = rng.random((n, 2, 4, 25)).astype(np.float32)
    target, neighbours = pred[:, 0].copy(), np.eye(n, dtype=np.int8)
    np.put_along_axis(neighbours, rng.integers(0, n, (n, 2)), 1, axis=1)
    tracemalloc.start()
    react.frcorr(pred, target, neighbours)
    react.frdist(pred, target, neighbours)
    react.frsyn(pred, target, seconds=0.2)
    for spread_of in (react.frdvs, react.frdiv, react.frvar):
        spread_of(pred)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_grows_with_the_items_not_with_their_square() -> None:
    peak_bytes(30)  # what is loaded once is not counted
    few, many = peak_bytes(300), peak_bytes(600)
    assert many < 2.5 * few
    assert many < 600 * 600 * 8 / 2


def test_numbers_that_are_not_finite_are_refused_by_name() -> None:
    pred, target, speaker, neighbours = reactions(16)
    pred[2, 1, 33, 7] = np.nan
    with pytest.raises(ValueError, match="prediction of item 2, prediction 1: AU12 is nan at frame 33"):
        react.frcorr(pred, target, neighbours)
    for score in (react.frdiv, react.frvar, react.frdvs):
        with pytest.raises(ValueError, match="AU12"):
            score(pred)
    target[1, 4, 15] = np.inf
    with pytest.raises(ValueError, match="target of item 1: valence is inf at frame 4"):
        react.frdist(speaker[:, None], target, neighbours)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, t, a: (p[:, 0], t, a), "pred .N, K, T, D. and target"),
        (lambda p, t, a: (p, t[:, :-1], a), "cut both to the same frames"),
        (lambda p, t, a: (p, t, a[:2]), "neighbours .4, 4. are needed"),
        (lambda p, t, a: (p, t, a * 0), "row 0 has no 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    pred, target, _, neighbours = reactions(17)
    with pytest.raises(ValueError, match=message):
        react.frcorr(*change(pred, target, neighbours))


def test_other_channels_need_other_groups() -> None:
    pred, target, _, neighbours = reactions(18, frames=12)
    with pytest.raises(ValueError, match="25 channels are needed"):
        react.frdist(pred[..., :17], target[..., :17], neighbours)
    assert react.frdist(pred[..., :17], target[..., :17], neighbours, groups=((0, 17, 1.0),)) > 0


@pytest.mark.parametrize("groups", [((0, 5, 1.0), (20, 25, 1.0)), ((0, 15, 1.0), (14, 25, 1.0)), ((1, 25, 1.0),)])
def test_groups_that_leave_a_channel_out_or_count_it_twice_are_refused(groups: tuple[warping.Group, ...]) -> None:
    pred, target, _, neighbours = reactions(18, frames=12)
    with pytest.raises(ValueError, match="without a gap, are needed; got"):
        react.frdist(pred, target, neighbours, groups=groups)


@pytest.mark.parametrize(("n", "dimensions"), [(80, 12), (300, 64)])
def test_frechet_equals_the_published_formula(n: int, dimensions: int) -> None:
    rng = np.random.default_rng(19)
    a, b = rng.normal(size=(n, dimensions)), rng.normal(0.3, 1.4, size=(n + 7, dimensions))
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.trace(linalg.sqrtm(sa @ sb)).real
    plain = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(sa) + np.trace(sb) - 2 * root
    assert frechet.frechet(a, b) == pytest.approx(plain, abs=1e-8)
    assert frechet.frechet(a, b, exact=True) == pytest.approx(plain, abs=1e-8)


@pytest.mark.parametrize(("n", "dimensions", "scale"), [(20, 200, 1.0), (50, 128, 1.0), (100, 300, 3.0)])
def test_fewer_samples_than_dimensions_meet_the_published_formula_within_its_own_rounding(
    n: int, dimensions: int, scale: float
) -> None:
    rng = np.random.default_rng(23)
    a, b = scale * rng.normal(size=(n, dimensions)), scale * rng.normal(size=(n, dimensions)) + 0.2
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.trace(linalg.sqrtm(sa @ sb)).real
    plain = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(sa) + np.trace(sb) - 2 * root
    assert frechet.frechet(a, b) == pytest.approx(plain, rel=1e-8)


def test_frechet_is_zero_for_equal_moments_and_the_gap_of_the_means_for_shifted_ones() -> None:
    a = np.random.default_rng(20).normal(size=(20, 50))
    assert frechet.frechet(a, a, exact=True) == pytest.approx(0, abs=1e-9)
    assert frechet.frechet(a, a + 0.5, exact=True) == pytest.approx(50 * 0.25, abs=1e-9)
    with pytest.raises(ValueError, match="same network and layer"):
        frechet.frechet(a, a[:, :-1])
    with pytest.raises(ValueError, match="two samples"):
        frechet.frechet(a[:1], a)
