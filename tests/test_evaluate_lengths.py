"""Sessions of any length are scored at their own; a lag or a score that a short one cannot have is not made up."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from distill import closeness, movement, pictures, scoring
from distill.evaluate import Config, evaluate
from distill.report import Report
from dyad.action_units import SEED17
from dyad.layouts import processed
from dyad.metrics import react
from dyad.metrics.bootstrap import Resampling
from dyad.predictions import PredictionStore
from dyad.session import Session
from dyad.synthetic.__main__ import main as make_dyads

Floats = NDArray[np.float32]
LENGTHS = (62, 100, 130, 300, 450)


def cut(session: Session, frames: int) -> Session:
    return replace(
        session, prob=session.prob[:frames], act=session.act[:frames], n_frames=frames, duration_s=frames / 30
    )


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations from two seconds to fifteen; nobody says which reactions are appropriate."""
    root, made = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut")
    flags = ["--sessions", "10", "--seconds", "15", "--val-share", "0.5", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), "--no-media", *flags]) == 0
    shutil.copytree(root / "truth", made / "truth")
    val = zip(processed.load(root, "val"), LENGTHS, strict=True)
    processed.write(made, "val", [cut(session, frames) for session, frames in val])
    processed.write(made, "train", processed.load(root, "train"))
    return made


def store_of(folder: Path, dyads: Path, noise: float, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    store = PredictionStore.create(folder, au_names=SEED17.units, horizons=(4,), source="test", run={})
    for session in (s for split in processed.SPLITS for s in processed.load(dyads, split)):
        ahead = np.minimum(np.arange(session.n_frames) + 4, session.n_frames - 1)
        said = 0.6 * session.prob[ahead] + noise * rng.random((session.n_frames, 17), np.float32)
        store.write(session.id, *(np.clip(said, 0, 1)[:, None].astype(np.float32),) * 2)
    return folder


@pytest.fixture(scope="module")
def made(dyads: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One evaluation whose baseline is the folder of another one."""
    folder = tmp_path_factory.mktemp("made")
    worse = folder / "worse" / "predictions"
    worse.mkdir(parents=True)
    for split in processed.SPLITS:
        store_of(worse / split, dyads, noise=0.4, seed=1)
    config = Config(
        dataset=dyads, out=folder / "out", predictions=store_of(folder / "store", dyads, noise=0.05), resamples=50,
        bound_sessions=0, baseline=(folder / "worse",),
    )  # fmt: skip
    return evaluate(config)


def test_reactions_are_scored_at_every_sessions_own_length_and_the_table_says_so(made: Report) -> None:
    assert made.reactions.frames == (LENGTHS[0] - 4, LENGTHS[-1] - 4)
    assert "sessions of 2 to 15 s, each at its own length" in made.table()
    truth = made.reactions.scores["ground truth"]
    assert truth["frdist"] == 0
    assert truth["frcorr_moving"] == pytest.approx(1, abs=1e-3)


def test_synchrony_leaves_out_what_is_too_short_and_says_how_much_is_left(made: Report) -> None:
    assert made.reactions.followed == 3
    assert "FRSyn: 3 sessions of 3.9 s or more whose speakers are measured" in made.table()
    short = [c for c in made.evidence.cases if c.length < 120]
    alone = closeness.followed([c.true(4)[None] for c in short], [c.true(4) for c in short])
    assert np.isnan(alone["frsyn"]).all()


def test_without_a_word_on_what_is_appropriate_the_listeners_own_reaction_is_and_the_table_says_so(
    made: Report,
) -> None:
    assert made.reactions.own_alone
    assert "against the listener's own reaction alone, for nobody says which others" in made.table()
    assert made.reactions.scores["mean"]["frcorr"] == 0  # as in the challenge
    assert np.isnan(made.reactions.scores["mean"]["frcorr_moving"])


def items(lengths: tuple[int, ...], seed: int = 0, still: bool = True) -> tuple[list[Floats], list[Floats]]:
    """Predictions [2, T, 3] and targets [T, 3] of every length; a unit of the first target never moves."""
    rng = np.random.default_rng(seed)
    pred = [rng.random((2, n, 3), np.float32) for n in lengths]
    true = [rng.random((n, 3), np.float32) for n in lengths]
    if still:
        true[0][:, 1] = 0.2
    return pred, true


def test_at_equal_lengths_every_score_is_the_challenges() -> None:
    pred, true = items((130,) * 4)
    neighbours = np.eye(4) + np.diag(np.ones(3), 1)
    got = closeness.appropriateness(pred, true, [np.flatnonzero(row) for row in neighbours])
    stacked, target = np.stack(pred), np.stack(true)
    for name, skip in (("frcorr", False), ("frcorr_moving", True)):
        want = react.frcorr(stacked, target, neighbours, per_prediction=True, skip_constant=skip)
        assert got[name].mean() == pytest.approx(want, abs=1e-12)
    want = react.frdist(stacked, target, neighbours, per_prediction=True, groups=((0, 3, 1 / 3),))
    assert got["frdist"].mean() == pytest.approx(want, abs=1e-12)
    spreads = closeness.spreads(pred)
    assert spreads["frdiv"].mean() == pytest.approx(react.frdiv(stacked), abs=1e-12)
    assert spreads["frvar"].mean() == pytest.approx(react.frvar(stacked), abs=1e-12)
    assert closeness.frdvs(pred) == react.frdvs(stacked)
    followed = closeness.followed(pred, [y.copy() for y in true])
    assert followed["frsyn"].mean() == pytest.approx(react.frsyn(stacked, target, fps=30.0))


def test_a_short_session_changes_no_other_ones_score() -> None:
    pred, true = items((140, 160, 200), still=False)
    rows = [np.array([i]) for i in range(3)]
    before = closeness.appropriateness(pred, true, rows)
    brief, briefly = items((5,), seed=3, still=False)
    after = closeness.appropriateness([*pred, *brief], [*true, *briefly], [*rows, np.array([3])])
    for name, values in before.items():
        np.testing.assert_array_equal(after[name][:3], values)


def test_spread_over_speakers_at_other_lengths_is_that_of_all_pairs_over_the_frames_they_share() -> None:
    pred, _ = items((20, 50, 35, 50))
    pairs = [(x, y, min(x.shape[1], y.shape[1])) for i, x in enumerate(pred) for y in pred[:i]]
    want = np.mean([np.square(x[:, :n].astype(float) - y[:, :n]).mean() for x, y, n in pairs])
    assert closeness.frdvs(pred) == pytest.approx(want, abs=1e-12)


def test_a_brief_neighbour_is_not_near_because_it_is_brief() -> None:
    rng = np.random.default_rng(0)
    pred, true = [rng.random((1, 300, 2), np.float32)], [rng.random((300, 2), np.float32)] * 2
    pred, true = pred * 2, [true[0], true[1][:30] + 0.01]
    whole = closeness.appropriateness(pred[:1], true[:1], [np.array([0])])["frdist"][0]
    brief = closeness.appropriateness(pred, true, [np.array([1])] * 2)["frdist"]
    assert brief[0] == pytest.approx(whole, rel=0.25)


def test_a_clip_of_a_second_and_a_smile_near_the_end_have_a_lag() -> None:
    wave = np.sin(np.arange(40) / 3)[:, None].astype(np.float32)
    assert movement.lag_ms(movement._correlations(wave[:31], wave[4:35])) == pytest.approx(4 * 1000 / 30)
    for start in (150, 280):
        true, late = np.zeros((2, 300, 1), np.float32)
        true[start : start + 10], late[start + 4 : start + 14] = 1, 1
        assert movement.lag_ms(movement._correlations(late, true)) == pytest.approx(4 * 1000 / 30)


@pytest.mark.parametrize(("sessions", "frames"), [(1, 62), (4, 62), (6, 300)])
def test_curves_that_follow_nothing_are_told_no_lag(sessions: int, frames: int) -> None:
    told = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        walks = [np.cumsum(rng.standard_normal((2, frames, 5)), axis=1) for _ in range(sessions)]
        curves = [(1 / (1 + np.exp(-w / 5))).astype(np.float32) for w in walks]
        over = Resampling.of(range(sessions), 50)
        names = [str(i) for i in range(sessions)]
        track = movement._track([c[0] for c in curves], [c[1] for c in curves], names, over, movement.Robot.load("sim"))
        told += track.told
    assert told <= 6


def test_true_curves_are_told_their_lag_however_short(made: Report) -> None:
    assert made.movement.tracks["ground truth"].told
    assert made.movement.tracks[scoring.MODEL].told
    assert not made.movement.tracks["random"].told


def test_another_evaluation_is_a_baseline_and_every_score_and_unit_has_its_difference(made: Report) -> None:
    gap = made.differences()["worse"]
    assert {"macro_ccc", "macro_f1", "macro_auprc", "macro_event_f1", "dtw", "frcorr", "frdist", "frvar"} <= set(gap)
    first, second = made.activity.systems[scoring.MODEL], made.activity.systems["worse"]
    assert gap["macro_f1"].value == first.macro["macro_f1"].value - second.macro["macro_f1"].value
    assert gap["dtw"].value < 0
    units = made.unit_differences()["worse"]
    assert set(units) == set(SEED17.units)
    assert {"ccc", "f1", "auprc"} <= set(units["AU12"])
    assert "model minus worse: CCC +" in made.table()
    assert "F1 +" in made.table()


def test_every_row_is_there_unit_by_unit(made: Report) -> None:
    out = Path(made.card["config"]["out"])
    written = json.loads((out / "report.json").read_text(encoding="utf8"))
    for row in ("mean", "last value", "random", "ground truth", "worse"):
        assert set(written["per_unit"][row]) == set(written["activity"]["per_unit"][row]) == set(SEED17.units)
    page = (out / "report.html").read_text(encoding="utf8")
    assert "CCC of every unit" in page
    assert "F1 of every unit" in page
    assert "resampled" not in written["movement"]["tracks"]["mean"]


def test_pictures_show_what_moves_in_the_time_that_is_drawn() -> None:
    true = np.zeros((3000, 3), np.float32)
    true[2000::2, 0], true[100:200, 1], true[:, 2] = 1, 0.5, np.nan
    assert pictures.liveliest(true[:1200], 1) == [1]
    assert pictures.liveliest(true, 3) == [0, 1, 2]
