"""Every row of the report's tables is what an independent computation says, and baselines and draws have rows too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.calibration import Calibration
from distill import activity, movement, reactions, rivals, scoring
from distill.evaluate import Config, evaluate, main
from distill.movement import Robot
from distill.report import Report
from dyad.action_units import SEED17
from dyad.layouts import processed
from dyad.metrics import classification, sequence, units
from dyad.predictions import PredictionStore
from dyad.provenance import write_json
from dyad.session import Session
from dyad.synthetic.__main__ import main as make_dyads

Floats = NDArray[np.float32]
HORIZONS = (0, 4)
ROWS = {"mean", "mimicry", "another listener", "random", "last value", "ground truth"}


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten conversations of 15 s, labels and truth alone; four of them for validation."""
    root = tmp_path_factory.mktemp("dyads")
    flags = ["--sessions", "10", "--seconds", "15", "--val-share", "0.4", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), "--no-media", *flags]) == 0
    return root


def store_of(folder: Path, sessions: list[Session], noise: float, seed: int = 0) -> Path:
    """The listener's own future, half way to the mean and blurred."""
    rng = np.random.default_rng(seed)
    store = PredictionStore.create(folder, au_names=SEED17.units, horizons=HORIZONS, source="test", run={})
    for session in sessions:
        ahead = np.minimum(np.arange(session.n_frames)[:, None] + np.array(HORIZONS), session.n_frames - 1)
        said = 0.5 * session.prob[ahead] + 0.05 + noise * rng.standard_normal((*ahead.shape, 17), np.float32)
        said = np.clip(np.nan_to_num(said), 0.01, 0.99).astype(np.float32)
        store.write(session.id, said, said)
    return folder


@pytest.fixture(scope="module")
def folder(dyads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of both splits, a baseline with samples, and what is appropriate for whom."""
    folder = tmp_path_factory.mktemp("rows")
    val, train = processed.load(dyads, "val"), processed.load(dyads, "train")
    store_of(folder / "store", val + train, noise=0.02)
    store_of(folder / "other" / "predictions", val, noise=0.3, seed=1)
    write_json(folder / "other" / "baseline.json", {"name": "another system", "look_ahead_frames": 6})
    (folder / "other" / "samples").mkdir()
    for session in val:
        noise = np.random.default_rng(2).random((3, session.n_frames, 17), np.float32)
        np.savez(folder / "other" / "samples" / f"{session.id}.npz", samples=noise, names=np.array(SEED17.units))
    (dyads / "appropriate").mkdir()
    ids = np.array([s.id for s in reversed(val)])
    np.savez(dyads / "appropriate" / "val.npz", ids=ids, neighbours=np.eye(len(ids)))
    return folder


def config_of(dyads: Path, folder: Path, name: str, **changes: object) -> Config:
    settings: dict[str, object] = {"resamples": 100, "bound_sessions": 0, "baseline": (folder / "other",)}
    settings |= {"dataset": dyads, "out": folder / name, "predictions": folder / "store", "samples": 4}
    return Config(**(settings | changes))  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def made(dyads: Path, folder: Path) -> Report:
    return evaluate(config_of(dyads, folder, "report"))


def test_every_table_holds_the_trivial_rows_and_the_baseline(made: Report) -> None:
    rows = ROWS | {"another system", scoring.MODEL}
    assert rows <= set(made.main)
    assert rows <= set(made.activity.systems)
    assert rows <= set(made.movement.tracks)
    assert rows | {"model, 4 draws", "another system, 3 draws"} <= set(made.reactions.scores)
    assert "another system" in made.differences()
    assert "last value and ground truth: they know the listener" in made.table()
    assert "another system: uses up to 200 ms of the speaker's future" in made.table()


def test_every_activation_score_of_the_model_is_that_of_all_frames_together(made: Report) -> None:
    cases, column = made.evidence.cases, HORIZONS.index(4)
    act = np.concatenate([c.active(4) for c in cases])
    true = np.concatenate([c.true(4) for c in cases])
    said = np.concatenate([c.predicted.act_prob[: c.length - 4, column] for c in cases])
    each = rivals.model(made.evidence, 4).thresholds
    ends = [int(v) for v in np.cumsum([c.length - 4 for c in cases])[:-1]]
    above = np.concatenate([p >= at for p, at in zip(np.split(said, ends), each, strict=True)]).astype(np.float32)
    cut = units.unit_scores(above, act, said, true, np.full(17, 0.5), tolerance_frames=9, session_ends=ends)
    want = units.unit_scores(said, act, said, true, np.full(17, 0.5), tolerance_frames=9, session_ends=ends)
    want = replace(want, **{n: getattr(cut, n) for n in ("f1", "precision", "recall", "event_f1")})
    active, curve = made.activity.systems[scoring.MODEL], made.main[scoring.MODEL]
    for name in ("f1", "precision", "recall", "auprc", "ece", "event_f1"):
        np.testing.assert_allclose([s.value for s in active.per_unit[name]], getattr(want, name), atol=1e-9)
    for name in ("mae", "rmse", "pearson", "ccc"):
        np.testing.assert_allclose([s.value for s in curve.per_unit[name]], getattr(want, name), atol=1e-6)
    rate = made.evidence.rate.astype(np.float64)
    groups, macro = want.by_frequency(rate), want.macro()
    for group in ("high", "mid", "low"):
        assert active.groups[group]["f1"].value == pytest.approx(groups[group]["f1"][0], nan_ok=True)
        assert curve.groups[group]["ccc"].value == pytest.approx(groups[group]["ccc"][0], nan_ok=True)
    assert active.macro["macro_precision"].value == pytest.approx(macro["precision"][0])
    assert active.defined["macro_precision"] == macro["precision"][1]


def test_a_resampled_area_is_near_the_exact_one_of_the_drawn_sessions() -> None:
    rng = np.random.default_rng(0)
    act = [(rng.random((500, 1)) < rate).astype(np.float32) for rate in (0.1, 0.3, 0.02)]
    said = [np.clip(0.3 * y + 0.7 * rng.random(y.shape), 0, 1).astype(np.float32) for y in act]
    counts = np.array([[2.0, 0, 1], [0, 3, 0], [1, 1, 1]])
    exact, drawn = activity.areas(said, act, counts)
    for row, count in zip(drawn, counts.astype(int), strict=True):
        p, y = (np.concatenate([x[i] for i in range(3) for _ in range(count[i])])[:, 0] for x in (said, act))
        assert row[0] == pytest.approx(classification.average_precision(p, y), abs=0.01)
    assert drawn[2, 0] == pytest.approx(exact[0], abs=1e-12)


def test_ground_truth_is_perfect_wherever_perfection_is_defined(made: Report) -> None:
    truth = made.main["ground truth"].macro
    assert truth["macro_ccc"].value == pytest.approx(1)
    assert truth["macro_skill"].value == 1
    active = made.activity.systems["ground truth"]
    for name in ("f1", "precision", "recall", "auprc", "event_f1"):
        assert active.macro[f"macro_{name}"].value == 1
    track = made.movement.tracks["ground truth"].scores
    assert (track["dtw"].value, track["lag_ms"].value, track["within_a_frame"].value) == (0, 0, 1)
    assert made.reactions.scores["ground truth"]["frcorr_moving"] == pytest.approx(1, abs=1e-3)
    assert made.reactions.scores["ground truth"]["frdist"] == 0


def test_last_value_is_late_by_what_it_was_asked_to_foresee_and_a_frame(made: Report) -> None:
    assert made.movement.tracks["last value"].scores["lag_ms"].value == pytest.approx(5 * 1000 / 30)


def test_noise_has_the_react_spreads_that_mathematics_gives_it(made: Report) -> None:
    for row in ("random", "another system, 3 draws"):
        assert made.reactions.scores[row]["frvar"] == pytest.approx(1 / 12, abs=2e-3)
        assert made.reactions.scores[row]["frdiv"] == pytest.approx(1 / 6, abs=4e-3)
    assert made.reactions.scores["random"]["frdvs"] == pytest.approx(1 / 6, abs=4e-3)


def test_rows_of_a_single_curve_have_no_diversity_and_draws_have(made: Report) -> None:
    diversity = {name: scores["frdiv"] for name, scores in made.reactions.scores.items()}
    assert diversity.pop("model, 4 draws") > 1e-3
    assert diversity.pop("another system, 3 draws") > 1e-3
    assert diversity.pop("random") > 1e-3
    assert set(diversity.values()) == {0.0}


def test_every_sessions_lag_is_that_of_the_metric(made: Report) -> None:
    track = made.movement.tracks[scoring.MODEL]
    for case, got in zip(made.evidence.cases, track.lags_ms, strict=True):
        said = case.predicted.prob[: case.length - 4, HORIZONS.index(4)]
        assert got == sequence.lag(said, case.true(4)).ms


def test_a_curve_shifted_by_hand_is_found_that_late() -> None:
    rng = np.random.default_rng(0)
    curve = np.cumsum(rng.standard_normal((600, 2)), axis=0).astype(np.float32)
    late = movement._correlations(curve[:-12], curve[12:])
    assert movement.lag_ms(late) == pytest.approx(400)


def test_the_robots_intensities_and_limits_are_those_that_the_loop_obeys() -> None:
    robot, loop = Robot.load("sim"), Calibration.load("sim")
    prob = np.linspace(0, 1, 101, dtype=np.float32)
    np.testing.assert_array_equal(robot.intensity(prob), loop.intensity(prob))
    assert robot.limits.velocity_per_s == loop.velocity_per_s
    assert robot.limits.acceleration_per_s2 == loop.acceleration_per_s2


def test_an_unknown_robot_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"robot 'tin'.*known: .*null.*sim"):
        Robot.load("tin")


def test_motion_is_that_of_the_robots_intensities(made: Report) -> None:
    robot, case = made.movement.robot, made.evidence.cases[0]
    curves = [robot.intensity(c.true(4)) for c in made.evidence.cases]
    steps = [np.abs(np.diff(c.astype(np.float64), axis=0)) * 30 for c in curves]
    track = made.movement.tracks["ground truth"]
    np.testing.assert_allclose(track.speed["p95"], np.mean([np.percentile(s, 95, axis=0) for s in steps], axis=0))
    assert track.fastest == pytest.approx(max(s.max() for s in steps))
    assert track.scores["speed_above"].value == pytest.approx(np.mean([(s > 6.0).mean() for s in steps]), abs=1e-9)
    for name, order, limit in (
        ("acceleration", 2, robot.limits.acceleration_per_s2),
        ("jerk", 3, robot.limits.jerk_per_s3),
    ):
        sizes = [np.abs(np.diff(c.astype(np.float64), order, axis=0)) * 30**order for c in curves]
        share = np.mean([(size > limit).mean() for size in sizes])
        assert track.scores[f"{name}_above"].value == pytest.approx(share, abs=1e-4)
    assert case.length - 4 == len(curves[0])


def test_a_robot_without_a_limit_of_jerk_has_no_share_above_it(made: Report) -> None:
    free = replace(made.movement.robot, limits=sequence.Limits(velocity_per_s=6.0, acceleration_per_s2=80.0))
    curves = {"truth": [c.true(4) for c in made.evidence.cases]}
    found = movement.movement(made.evidence, curves, 4, made.over, free)
    assert np.isnan(found.tracks["truth"].scores["jerk_above"].value)


def test_frames_without_labels_are_held_for_the_motors_and_left_out_for_the_rest() -> None:
    curve = np.array([[np.nan, 1], [2, np.nan], [np.nan, 3]], np.float32)
    np.testing.assert_array_equal(movement.held(curve), [[0, 1], [2, 1], [2, 3]])
    said, true = movement.annotated(np.ones((3, 3), np.float32), np.array([[1, 2, np.nan]] * 2 + [[np.nan] * 3]))
    assert said.shape == true.shape == (2, 2)


def test_the_same_seed_draws_the_same_whatever_else_is_scored(dyads: Path, folder: Path, made: Report) -> None:
    assert made.draws is not None
    assert made.head is not None
    fewer = replace(made.evidence, cases=made.evidence.cases[::-1][:2], baselines=[])
    said = scoring.curves(fewer, 4, 0)[scoring.MODEL]
    again = reactions.draws_of(fewer, said, made.head, config_of(dyads, folder, "again"))
    np.testing.assert_array_equal(again[0], made.draws[-1])
    np.testing.assert_array_equal(again[1], made.draws[-2])


def test_at_temperature_nought_the_draws_are_the_model_itself(dyads: Path, folder: Path) -> None:
    cold = evaluate(config_of(dyads, folder, "cold", temperature=0.0, samples=2, baseline=()))
    scores = cold.reactions.scores
    assert scores["model, 2 draws"] == pytest.approx(scores["model"])
    assert scores["model, 2 draws"]["frdiv"] == 0
    quality = cold.reactions.quality
    assert quality is not None
    assert quality.skill_of_mean.value == pytest.approx(quality.skill.value)
    assert quality.crps.value == pytest.approx(quality.mae.value)
    assert quality.skill.value == pytest.approx(cold.main[scoring.MODEL].macro["macro_skill"].value)


def test_the_draws_quality_is_that_of_plain_sums_over_all_frames(made: Report) -> None:
    assert made.draws is not None
    quality = made.reactions.quality
    assert quality is not None
    drawn, true = np.concatenate(made.draws, axis=1), np.concatenate([c.true(4) for c in made.evidence.cases])
    ratio = drawn.reshape(-1, 17).var(axis=0).sum() / true.var(axis=0).sum()
    assert quality.variance_ratio.value == pytest.approx(ratio, rel=1e-4)
    pairs = np.abs(drawn[:, None] - drawn[None]).sum(axis=(0, 1)) / (4 * 3)
    crps = (np.abs(drawn - true).mean(axis=0) - pairs / 2).mean()
    assert quality.crps.value == pytest.approx(crps, rel=1e-4)
    assert quality.crps.value < quality.mae.value
    within = np.mean([d.var(axis=1).mean(axis=0) for d in made.draws], axis=0).sum()
    wanted = np.mean([c.true(4).var(axis=0) for c in made.evidence.cases], axis=0).sum()
    assert quality.within_ratio.value == pytest.approx(within / wanted, rel=1e-3)


def test_rows_that_are_fitted_or_drawn_never_saw_a_scored_session(made: Report) -> None:
    scored = {case.session.id for case in made.evidence.cases}
    assert not scored & {case.session.id for case in (*made.evidence.tuning, *made.evidence.fitting)}
    for row in (scoring.MODEL, "another system", "mimicry"):
        assert made.activity.tuned_on[row].startswith("other recordings of this split: 4 parts")
    changed = [replace(c, session=replace(c.session, act=1 - c.session.act)) for c in made.evidence.cases[:1]]
    blind = replace(made.evidence, cases=[*changed, *made.evidence.cases[1:]])
    before, after = (rivals.activations(e, 4, 0) for e in (made.evidence, blind))
    for name in ("mimicry", "another system", "random", "mean"):
        np.testing.assert_array_equal(before[name].thresholds[0], after[name].thresholds[0])


def test_draws_without_predicted_training_sessions_are_refused(dyads: Path, folder: Path) -> None:
    alone = folder / "other" / "predictions"
    with pytest.raises(ValueError, match="--samples needs predictions of training sessions"):
        evaluate(config_of(dyads, folder, "refused", predictions=alone, baseline=()))


def test_a_baseline_that_cannot_be_compared_is_refused_by_name(dyads: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no predictions/store\.json nor predictions/val/store\.json there"):
        evaluate(config_of(dyads, folder, "refused", baseline=(tmp_path,)))
    store_of(tmp_path / "few" / "predictions", processed.load(dyads, "val")[:3], noise=0.1)
    with pytest.raises(ValueError, match="lacks 1 of 4 scored sessions"):
        evaluate(config_of(dyads, folder, "refused", baseline=(tmp_path / "few",)))
    store_of(tmp_path / "model" / "predictions", processed.load(dyads, "val"), noise=0.1)
    with pytest.raises(ValueError, match="baseline 'model' is the name of a row already"):
        evaluate(config_of(dyads, folder, "refused", baseline=(tmp_path / "model",)))


def test_samples_of_other_units_are_refused_by_name(dyads: Path, folder: Path, tmp_path: Path) -> None:
    val = processed.load(dyads, "val")
    store_of(tmp_path / "odd" / "predictions", val, noise=0.1)
    (tmp_path / "odd" / "samples").mkdir()
    odd = {"samples": np.zeros((2, val[0].n_frames, 17), np.float32), "names": np.array(SEED17.units[::-1])}
    np.savez(tmp_path / "odd" / "samples" / f"{val[0].id}.npz", **odd)
    with pytest.raises(ValueError, match=r"samples of AU1, AU2, .* are needed, in this order; got AU26"):
        evaluate(config_of(dyads, folder, "refused", baseline=(tmp_path / "odd",)))


def test_a_baseline_may_be_given_twice_and_draws_are_pictured(
    dyads: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_of(tmp_path / "third" / "predictions", processed.load(dyads, "val"), noise=0.1)
    flags = ["--predictions", str(folder / "store"), "--dataset", str(dyads), "--out", str(tmp_path / "out")]
    flags += ["--baseline", str(folder / "other"), "--baseline", str(tmp_path / "third"), "--samples", "2"]
    assert main([*flags, "--resamples", "20", "--bound-sessions", "0"]) == 0
    said = capsys.readouterr().out
    assert "model minus another system" in said
    assert "model minus third" in said
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf8")
    assert page.count("data:image/png;base64,") == 8
    assert (tmp_path / "out" / "stochastic.npz").is_file()
