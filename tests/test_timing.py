"""Stage times stay small however long the run, and their percentiles agree with numpy's to a per cent."""

import numpy as np
import pytest

from deploy.timing import BINS, StageTimes, percentiles


def test_percentiles_agree_with_numpys_to_a_per_cent() -> None:
    times, drawn = StageTimes(), np.random.default_rng(0).lognormal(1.0, 0.8, 20_000)
    for ms in drawn:
        times.add("student", ms)
    found = times.summary()["student"]
    for p in (50, 95, 99):
        assert found[f"p{p}_ms"] == pytest.approx(np.percentile(drawn, p), rel=0.012)


def test_what_lies_between_two_looks_is_their_difference() -> None:
    times = StageTimes()
    for _ in range(100):
        times.add("total", 1.0)
    before = times.counts()
    for _ in range(100):
        times.add("total", 50.0)
    later = {stage: bins - before[stage] for stage, bins in times.counts().items()}
    assert percentiles(later)["total"]["p50_ms"] == pytest.approx(50.0, rel=0.01)
    assert times.summary()["total"]["p50_ms"] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("ms", [0.0, 1e-9, 1e12])
def test_the_shortest_and_the_longest_have_a_bin_too(ms: float) -> None:
    times = StageTimes()
    times.add("send", ms)
    assert times.counts()["send"].sum() == 1
    assert len(times.counts()["send"]) == BINS


def test_a_stage_that_was_never_timed_is_left_out() -> None:
    times = StageTimes()
    times.add("face", 2.0)
    assert list(times.summary()) == ["face"]
