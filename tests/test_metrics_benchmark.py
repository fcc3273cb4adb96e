"""The scores' benchmark judges by its goals, traces memory, and what the README quotes of it is what was measured."""

import numpy as np
import pytest

from benchmarks import figures, metrics, metrics_memory

ROWS = {
    name: {"ratio": 99.0, "largest_difference": 1e-9} for name in (*metrics.GOALS, "DTW without numba, one prediction")
}
LINEAR = {"FRDist": {"peak_mb": [1, 2, 4], "growth": 1.0}}


def test_a_benchmark_that_meets_its_goals_misses_none() -> None:
    assert metrics.missed(ROWS, LINEAR) == []


@pytest.mark.parametrize(
    ("rows", "memory", "said"),
    [
        ({"CCC": {"ratio": 14.9, "largest_difference": 0.0}}, {}, "CCC: 14.9 times as fast, wanted 15"),
        ({"TLCC": {"ratio": 99.0, "largest_difference": 1e-3}}, {}, "TLCC: off by 1.0e-03"),
        ({"TLCC": {"ratio": 99.0, "largest_difference": float("nan")}}, {}, "TLCC: off by nan"),
        ({}, {"FRDvs": {"peak_mb": [1, 4, 16], "growth": 2.0}}, "FRDvs: memory grows with the power 2.0"),
    ],
)
def test_every_kind_of_goal_can_be_missed(rows: dict, memory: dict, said: str) -> None:
    (line,) = metrics.missed(ROWS | rows, LINEAR | memory)
    assert line.startswith(said)


def test_what_is_held_for_all_pairs_is_seen_to_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(pred: np.ndarray, *_: np.ndarray) -> dict:
        return {"pairs": lambda: np.ones((len(pred), len(pred))), "items": lambda: np.ones((len(pred), 999))}

    monkeypatch.setattr(metrics_memory, "_scores", scores)
    found = metrics_memory.measure(0)
    assert found["pairs"]["growth"] == pytest.approx(2, abs=0.05)
    assert found["items"]["growth"] == pytest.approx(1, abs=0.05)
    assert found["pairs"]["peak_mb"][0] == pytest.approx(1.28, abs=0.05)


def test_the_readme_quotes_time_warping_with_few_reactions_with_all_and_without_numba() -> None:
    rows = {name: {"ratio": float(i)} for i, name in enumerate(ROWS, start=1)}
    result = {"rows": rows, "run": {"config": {"items": 6}}, "memory": {"items": [400, 1600], "scores": LINEAR}}
    said = figures.scoring(result)
    assert "DTW 3.0 × with two appropriate reactions, 4.0 × with 6, 5.0 × on noise, 6.0 × without numba" in said
    assert "From 400 to 1,600 items memory grows with the power 1.00 of them at most." in said
