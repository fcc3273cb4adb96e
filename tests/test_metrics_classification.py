"""F1, the best threshold and average precision against brute force, degenerate inputs included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dyad.metrics import classification

Floats = NDArray[np.float32]


def labelled(seed: int, count: int, rate: float = 0.3, ties: bool = True) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    prob = rng.random(count).astype(np.float32)
    if ties:
        prob = np.round(prob, 1)
    return prob, (rng.random(count) < rate).astype(np.float32)


def brute_f1(prob: Floats, act: Floats, threshold: float) -> float:
    pairs = [(p >= threshold, y > 0.5) for p, y in zip(prob, act, strict=True) if not np.isnan(y)]
    hits = sum(g and y for g, y in pairs)
    wrong = sum(g != y for g, y in pairs)
    return 2 * hits / (2 * hits + wrong)


def brute_average_precision(prob: Floats, act: Floats) -> float:
    """Sum over distinct thresholds of precision times the recall gained there."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(prob.tolist()), reverse=True):
        given = prob >= threshold
        recall = act[given].sum() / act.sum()
        total += (recall - before) * act[given].mean()
        before = recall
    return float(total)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(5, 120), ties=st.booleans())
def test_f1_and_average_precision_equal_brute_force(seed: int, count: int, ties: bool) -> None:
    prob, act = labelled(seed, count, ties=ties)
    act[0] = 1
    assert classification.average_precision(prob, act) == pytest.approx(brute_average_precision(prob, act), abs=1e-6)
    for threshold in (0.1, 0.5, 0.9):
        assert classification.f1(prob, act, threshold) == pytest.approx(brute_f1(prob, act, threshold), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(5, 80))
def test_no_threshold_beats_the_best_one(seed: int, count: int) -> None:
    prob, act = labelled(seed, count)
    act[-1] = 1
    best = classification.f1(prob, act, classification.best_threshold(prob, act))
    assert best >= max(brute_f1(prob, act, t) for t in set(prob.tolist())) - 1e-9


def test_unannotated_frames_are_left_out_of_every_count() -> None:
    prob, act = labelled(3, 60)
    holes = act.copy()
    holes[20:40] = np.nan
    kept = np.r_[0:20, 40:60]
    assert classification.f1(prob, holes, 0.5) == classification.f1(prob[kept], act[kept], 0.5)
    assert classification.average_precision(prob, holes) == classification.average_precision(prob[kept], act[kept])


def test_a_unit_without_positives_has_no_score_and_a_neutral_threshold() -> None:
    prob, act = labelled(4, 30)
    act[:] = 0
    assert np.isnan(classification.f1(prob, act, 0.5))
    assert np.isnan(classification.average_precision(prob, act))
    assert classification.best_threshold(prob, act) == 0.5


def test_a_unit_never_annotated_has_no_score_either() -> None:
    prob, act = labelled(5, 30)
    act[:] = np.nan
    assert np.isnan(classification.f1(prob, act, 0.5))
    assert classification.best_threshold(prob, act) == 0.5


def test_a_perfect_ranking_has_average_precision_one() -> None:
    act = np.array([0, 0, 1, 0, 1], np.float32)
    assert classification.average_precision(0.2 + 0.6 * act, act) == pytest.approx(1.0)


def test_one_frame_is_enough_for_a_score() -> None:
    one = np.ones(1, np.float32)
    assert classification.f1(one, one, 0.5) == 1.0
    assert classification.average_precision(one, one) == 1.0


def test_chance_scores_about_the_base_rate() -> None:
    prob, act = labelled(6, 20_000, rate=0.1, ties=False)
    assert classification.average_precision(prob, act) == pytest.approx(0.1, abs=0.02)


def test_a_probability_that_is_no_number_is_refused_by_its_frame_where_it_is_scored() -> None:
    prob, act = labelled(7, 40)
    prob[7], act[0] = np.nan, 1
    scores = (
        lambda: classification.f1(prob, act, 0.5),
        lambda: classification.precision(prob, act, 0.5),
        lambda: classification.recall(prob, act, 0.5),
        lambda: classification.average_precision(prob, act),
        lambda: classification.best_threshold(prob, act),
    )
    for score in scores:
        with pytest.raises(ValueError, match="probability of the scored frames: nan at frame 7"):
            score()
    act[7] = np.nan
    assert all(np.isfinite(score()) for score in scores)
    with pytest.raises(ValueError, match="one shape is needed"):
        classification.f1(prob, act[1:], 0.5)
