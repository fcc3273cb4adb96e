"""The gate between teacher and student: what it measures, whom it drops, and that the student heeds it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dyad.action_units import SEED17
from dyad.layouts import processed
from dyad.metrics import agreement, calibration
from dyad.session import Session
from dyad.soft_labels import SoftLabelStore
from teacher.quality import Limits, judge, judge_store

FRAMES, UNITS = 120, len(SEED17.units)
Floats = NDArray[np.float32]


def _session(name: str, prob: Floats, act: Floats) -> Session:
    return Session(
        id=name,
        speaker_video_path=Path("v.mp4"),
        speaker_audio_path=Path("a.wav"),
        listener_video_path=None,
        listener_audio_path=None,
        au_names=SEED17.units,
        prob=prob,
        act=act,
        fps=30,
        duration_s=FRAMES / 30,
        n_frames=FRAMES,
    )


def _truth(seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    prob = rng.uniform(0.05, 0.6, (FRAMES, UNITS)).astype(np.float32)
    return prob, (rng.uniform(size=prob.shape) < prob).astype(np.float32)


def _store(root: Path, labels: dict[str, tuple[Floats, Floats]]) -> SoftLabelStore:
    """A store of session → (probability, uncertainty), activation odds those of the probability."""
    store = SoftLabelStore.create(root, au_names=SEED17.units, teacher_hash="t", run={})
    for name, (prob, uncertainty) in labels.items():
        odds = np.log(np.clip(prob, 1e-6, 1 - 1e-6) / (1 - np.clip(prob, 1e-6, 1 - 1e-6)))
        store.write(name, prob, odds.astype(np.float32), uncertainty)
    return store


def _good(seed: int) -> tuple[Floats, Floats]:
    prob, _ = _truth(seed)
    return prob, np.full_like(prob, 0.05)


def test_good_labels_are_kept_and_each_kind_of_bad_one_is_dropped_with_its_reason(tmp_path: Path) -> None:
    still = np.full((FRAMES, UNITS), 0.3, np.float32)
    stuck = np.where(np.random.default_rng(0).uniform(size=still.shape) < 0.5, 0, 1).astype(np.float32)
    quiet = np.full_like(still, 0.05)
    labels = {
        **{f"good{i}": _good(i) for i in range(5)},
        "still": (still, quiet),
        "stuck": (stuck, quiet),
        "torn": (_good(6)[0], np.full_like(still, 0.4)),
        "wrong": (1 - _truth(7)[0], quiet),
    }
    seeds = {**{f"good{i}": i for i in range(5)}, "wrong": 7}
    annotated = [_session(name, *_truth(seed)) for name, seed in seeds.items()]
    verdict = judge(_store(tmp_path, labels), annotated, Limits())
    words = {"still": "collapsed", "stuck": "saturated", "torn": "disagreement", "wrong": "miscalibrated"}
    assert verdict["drop"].keys() == words.keys()
    for name, word in words.items():
        assert len(verdict["drop"][name]) == 1
        assert word in verdict["drop"][name][0]
    assert verdict["sessions"]["torn"]["calibration_error"] is None
    assert verdict["sessions"]["good0"]["calibration_error"] < 0.05


def test_scores_per_unit_are_those_of_all_annotated_frames_at_once(tmp_path: Path) -> None:
    labels = {f"s{i}": _good(i + 20) for i in range(3)}
    annotated = [_session(name, *_truth(i)) for i, name in enumerate(labels)]
    annotated[1].act[:, 2] = np.nan
    verdict = judge(_store(tmp_path, labels), annotated, Limits())
    prob, truth = (np.concatenate(x) for x in ([p for p, _ in labels.values()], [s.prob for s in annotated]))
    act = np.concatenate([s.act for s in annotated])
    for a, name in enumerate(SEED17.units):
        unit = verdict["units"][name]
        assert unit["ccc"] == pytest.approx(agreement.ccc(prob, truth)[a], abs=1e-5)
        assert unit["calibration_error"] == pytest.approx(
            calibration.expected_error(prob[:, a], act[:, a]), abs=2e-3
        )  # odds are stored as float32: a value on the edge of a bin may fall to the other side


@given(st.integers(1, 400), st.integers(0, 2**31))
def test_the_calibration_error_is_that_of_a_plain_loop_over_bins(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prob, act = rng.uniform(size=count), rng.integers(0, 2, count).astype(float)
    act[rng.uniform(size=count) < 0.2] = np.nan
    known = ~np.isnan(act)
    total = 0.0
    for low in range(10):
        inside = known & (prob >= low / 10) & (prob < (low + 1) / 10)
        if inside.any():
            total += inside.sum() * abs(prob[inside].mean() - act[inside].mean())
    got = calibration.expected_error(prob, act)
    assert got == pytest.approx(total / known.sum(), abs=1e-9) if known.any() else np.isnan(got)


def test_probabilities_that_happen_as_often_as_they_say_have_no_calibration_error() -> None:
    assert calibration.expected_error(np.array([0.25] * 4), np.array([1, 0, 0, 0])) == 0
    assert calibration.expected_error(np.array([1.0, 0.0]), np.array([0, 1])) == 1


def test_the_verdict_lies_in_the_store_and_an_empty_store_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"s{i}" for i in range(3)]
    for split, chosen in (("train", names[:2]), ("val", names[2:])):
        processed.write(tmp_path / "data", split, [_session(n, *_truth(i)) for i, n in enumerate(chosen)])
    empty = _store(tmp_path / "empty", {})
    judge_store(empty, tmp_path / "data", Limits())
    assert not empty.quality_path.exists()
    assert empty.dropped() == {}
    still = np.full((FRAMES, UNITS), 0.3, np.float32)
    store = _store(tmp_path / "store", {"s0": _good(0), "s1": _good(1), "s2": (still, still * 0)})
    judge_store(store, tmp_path / "data", Limits())
    assert list(store.dropped()) == ["s2"]
    told = capsys.readouterr().out
    assert "not worth learning from: s2: collapsed" in told
    assert "1 of 3 sessions to drop" in told
