"""Intervals over sessions hold the truth about as often as they say, and know which sessions belong together."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import intervals
from benchmarks.intervals import WORLDS, covered, world
from distill.comparison import macro_ccc
from dyad.layouts import recordings
from dyad.metrics import agreement, bootstrap
from dyad.metrics.bootstrap import Resampling
from dyad.session import Session

RARE = WORLDS["90, 50, 20 % of them"]
TRIALS = 150


@pytest.mark.parametrize("sessions", [6, 11, 24])
def test_the_interval_of_macro_ccc_holds_the_truth_where_every_unit_moves_in_every_session(sessions: int) -> None:
    assert covered((1, 1, 1), sessions, gap=False, trials=TRIALS) >= 0.9


@pytest.mark.parametrize(("sessions", "least"), [(6, 0.75), (11, 0.85), (24, 0.9)])
def test_the_interval_of_macro_ccc_holds_the_truth_where_units_move_in_few_sessions(
    sessions: int, least: float
) -> None:
    assert covered(RARE, sessions, gap=False, trials=TRIALS) >= least


def test_the_interval_of_a_difference_holds_the_truth_where_units_move_in_few_sessions() -> None:
    assert covered(RARE, 11, gap=True, trials=TRIALS) >= 0.8


@pytest.mark.parametrize("sessions", [3, 5, 30])
def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says(sessions: int) -> None:
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        values = rng.normal(0, 1, sessions)
        over = Resampling.of(range(sessions), 300, trial)
        low, high = over.interval(values.mean(), over.counts @ values / sessions)
        hits += low <= 0 <= high
    assert 0.9 <= hits / 200 <= 0.99


def test_students_t_is_scipys() -> None:
    for freedom in (1, 2, 3, 5, 10, 39, 600):
        assert bootstrap.student_t(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_an_interval_holds_its_value_and_stays_in_the_scores_range() -> None:
    biased = np.linspace(0.1, 0.2, 50)
    low, high = bootstrap.interval(biased, 0.6, 5, bounds=(0.0, 1.0))
    assert 0 <= low < 0.6 < high <= 1
    assert high >= 1.2 - biased.mean() or high == 1  # the bias that the draws show is added, not repeated
    low, high = bootstrap.interval(np.full(9, 1.0), 1.0, 5, bounds=(0.0, 1.0))
    assert (low, high) == (1.0, 1.0)


def test_a_score_that_rests_on_one_session_has_no_interval() -> None:
    """F1 of a unit that is active in a single session: a third of the draws have no such session at all."""
    for sessions in (2, 3, 11, 40):
        over = Resampling.of(range(sessions), 1000, 0)
        alone, both = over.counts[:, 0], over.counts[:, :2].sum(axis=1)
        jitter = 0.01 * over.counts[:, -1]
        assert math.isnan(over.interval(0.5, np.where(alone > 0, 0.5 + jitter, np.nan))[0])
        assert sessions == 2 or math.isfinite(over.interval(0.5, np.where(both > 0, 0.5 + jitter, np.nan))[0])


def test_an_interval_of_nothing_but_undefined_values_is_undefined() -> None:
    assert all(np.isnan(v) for v in bootstrap.interval(np.full(5, np.nan), 0.3, 5))
    assert all(np.isnan(v) for v in bootstrap.interval(np.ones(5), np.nan, 5))
    assert all(np.isnan(v) for v in Resampling.of(["one", "one"], 5).interval(0.3, np.zeros(0)))


def test_every_resample_draws_as_many_sessions_as_there_are() -> None:
    counts = bootstrap.resample_counts(7, 50, seed=3)
    assert counts.shape == (50, 7)
    np.testing.assert_array_equal(counts.sum(axis=1), 7)
    np.testing.assert_array_equal(counts, bootstrap.resample_counts(7, 50, seed=3))
    np.testing.assert_array_equal(counts, Resampling.of("abcdefg", 50, 3).counts)


def test_sessions_of_one_recording_are_drawn_together() -> None:
    over = Resampling.of(["a", "b", "a", "c", "b"], 40)
    assert over.independent == 3
    np.testing.assert_array_equal(over.counts[:, [0, 1]], over.counts[:, [2, 4]])
    np.testing.assert_array_equal(over.counts[:, [0, 1, 3]].sum(axis=1), 3)


def test_two_directions_of_each_clip_make_the_interval_as_wide_as_the_clips_alone() -> None:
    values = np.random.default_rng(0).normal(0, 1, 12)
    clips = Resampling.of(range(12), 400)
    twice = Resampling.of([i // 2 for i in range(24)], 400)
    one = clips.interval(values.mean(), clips.counts @ values / 12)
    assert twice.interval(values.mean(), twice.counts @ np.repeat(values, 2) / 24) == pytest.approx(one)


def test_a_bootstrap_equals_scoring_the_drawn_sessions_anew() -> None:
    rng = np.random.default_rng(0)
    sessions = [tuple(rng.random((40, 4), np.float32) for _ in range(2)) for _ in range(5)]
    totals = np.stack([agreement.sums(p, y, np.full(4, 0.5, np.float32)) for p, y in sessions])
    counts = bootstrap.resample_counts(5, 6, seed=1)
    got = bootstrap.bootstrap(totals, lambda s: agreement.scores(s).ccc, counts)
    for row, count in zip(got, counts, strict=True):
        drawn = [i for i, n in enumerate(count) for _ in range(int(n))]
        pred, true = (np.concatenate([sessions[i][k] for i in drawn]) for k in (0, 1))
        np.testing.assert_allclose(row, agreement.ccc(pred, true), atol=1e-9)


def test_a_paired_difference_is_that_of_the_same_draws_and_refuses_other_sessions() -> None:
    first, second = (x[:8] for x in world((1, 1, 1)))
    over = Resampling.of(range(8), 100)
    assert bootstrap.paired(first, first, macro_ccc, over) == (0, 0, 0)
    value, low, high = bootstrap.paired(first, second, macro_ccc, over)
    assert value == macro_ccc(first.sum(axis=0)) - macro_ccc(second.sum(axis=0))
    assert low <= value <= high
    with pytest.raises(ValueError, match="score both systems on the same sessions"):
        bootstrap.paired(first, second[:5], macro_ccc, over)


def session(name: str, speaker: str, listener: str | None) -> Session:
    make = partial(Session, speaker_audio_path=Path(), listener_audio_path=None, au_names=("AU1",), fps=30.0)
    prob = np.zeros((30, 1), np.float32)
    pictures = Path(listener) if listener else None
    return make(id=name, speaker_video_path=Path(speaker), listener_video_path=pictures, prob=prob, act=prob,
                duration_s=1.0, n_frames=30)  # fmt: skip


def test_both_directions_of_a_clip_are_one_recording_and_a_layout_may_say_more(tmp_path: Path) -> None:
    there, back = session("a", "a.mp4", "b.mp4"), session("b", "b.mp4", "a.mp4")
    others = [session("c", "c.mp4", None), session("d", "", None), session("e", "", None)]
    first, second, *rest = recordings.of(tmp_path, [there, back, *others])
    assert first == second
    assert len({first, *rest}) == 4
    recordings.write(tmp_path, {"a": "chat 1", "b": "chat 1", "c": "chat 1"})
    assert recordings.of(tmp_path, [there, others[0], others[1]]) == ["chat 1", "chat 1", "d"]


def test_the_table_of_coverage_is_written_by_one_command(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- intervals:begin -->\n<!-- intervals:end -->\n", encoding="utf8")
    flags = ["--sizes", "6", "--trials", "4", "--resamples", "20", "--results", str(tmp_path / "made.json")]
    assert intervals.main([*flags, "--report", str(page)]) == 0
    assert set(
        json.loads((tmp_path / "made.json").read_text(encoding="utf8"))["covered"]["every session, difference"]
    ) == {"6"}
    assert "| 60, 20, 8 % of them, macro CCC |" in page.read_text(encoding="utf8")
