"""What the benchmarks compute besides time: half-rises, multiply-adds, ratios, and the README's figures."""

import json

import numpy as np
import pytest

from benchmarks import figures
from benchmarks.planted_lags import AFTER, BEFORE, answered_by, half_rise_s
from dyad.synthetic.listener import REACTIONS


@pytest.mark.parametrize("lag_frames", [6, 15, 40])
def test_a_step_that_rises_over_ten_frames_is_half_way_five_frames_after_its_lag(lag_frames: int) -> None:
    t = np.arange(BEFORE + AFTER) - BEFORE
    curve = 0.1 + 0.6 * np.clip((t - lag_frames) / 10, 0, 1)
    assert half_rise_s(curve) == pytest.approx((lag_frames + 5) / 30, abs=0.02)


def test_a_flat_curve_has_no_lag() -> None:
    assert np.isnan(half_rise_s(np.full(BEFORE + AFTER, 0.3)))


def test_every_kind_of_event_is_answered_by_a_unit_with_a_planted_lag() -> None:
    for kind in REACTIONS:
        unit, lag_s = answered_by(kind)
        assert unit.startswith("AU")
        assert 0.1 < lag_s < 2


@pytest.mark.parametrize("block", figures.BLOCKS)
def test_the_readme_holds_the_figures_of_the_results_files(block: str) -> None:
    for name, table in figures.BLOCKS[block].items():
        path = figures.RESULTS / f"{name}.json"
        text = table(json.loads(path.read_text(encoding="utf8")))
        assert text in (figures.ROOT / "README.md").read_text(encoding="utf8")
