"""Evaluation ranks what it should: truth above mimicry above the mean, with honest thresholds, intervals and gaps."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from distill import activity, artefact, rivals, scoring
from distill import report as report_module
from distill.evaluate import Config, evaluate, main
from distill.report import Report
from dyad.action_units import RARE, SEED17
from dyad.layouts import processed
from dyad.metrics import agreement, classification
from dyad.predictions import PredictionStore
from dyad.session import Session
from dyad.synthetic.__main__ import main as make_dyads

Floats = NDArray[np.float32]
HORIZONS = (0, 4, 8)


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten conversations of 20 s, labels and truth alone; four of them for validation."""
    root = tmp_path_factory.mktemp("dyads")
    flags = ["--sessions", "10", "--seconds", "20", "--val-share", "0.4", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), "--no-media", *flags]) == 0
    return root


def store_of(folder: Path, sessions: list[Session], noise: float, seed: int = 0) -> Path:
    """Predictions that are the listener's own future, blurred by noise: as good as one likes."""
    rng = np.random.default_rng(seed)
    store = PredictionStore.create(folder, au_names=SEED17.units, horizons=HORIZONS, source="test", run={})
    for session in sessions:
        ahead = np.minimum(np.arange(session.n_frames)[:, None] + np.array(HORIZONS), session.n_frames - 1)
        said = session.prob[ahead] + noise * rng.standard_normal((*ahead.shape, 17), np.float32)
        said = np.clip(np.nan_to_num(said), 0, 1).astype(np.float32)
        store.write(session.id, said, said)
    return folder


def config_of(dyads: Path, store: Path, out: Path, **changes: object) -> Config:
    settings: dict[str, object] = {"resamples": 200, "bound_listeners": 20, "bound_sessions": 2}
    return Config(dataset=dyads, out=out, predictions=store, **(settings | changes))  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def good(dyads: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("good")
    store = store_of(folder / "store", processed.load(dyads, "val"), noise=0.01)
    return evaluate(config_of(dyads, store, folder / "report"))


@pytest.fixture(scope="module")
def written(good: Report) -> dict[str, object]:
    return json.loads((Path(good.card["config"]["out"]) / "report.json").read_text(encoding="utf8"))


def test_a_prediction_near_the_truth_beats_every_rival_beyond_doubt(good: Report) -> None:
    model = good.main[scoring.MODEL]
    assert model.macro["macro_ccc"].value > 0.85
    assert model.macro["macro_skill"].value > 0.85
    assert set(good.differences()) == {"mean", "mimicry", "mimicry, spread"}
    for scores in good.differences().values():
        assert all(scores[n].low > 0 for n in ("macro_ccc", "macro_skill"))


def test_the_mean_predictor_has_no_skill_and_no_concordance(good: Report) -> None:
    mean = good.main["mean"]
    assert mean.macro["macro_skill"].value == pytest.approx(0, abs=1e-9)
    assert mean.macro["macro_ccc"].value == pytest.approx(0, abs=1e-3)
    assert math.isnan(mean.macro["macro_pearson"].value)


def test_a_listener_of_another_conversation_is_worse_than_the_mean(good: Report) -> None:
    assert good.main["another listener"].macro["macro_skill"].value < 0


def test_scores_equal_those_of_all_frames_taken_together(good: Report) -> None:
    held, column = good.evidence, HORIZONS.index(4)
    true = np.concatenate([c.true(4) for c in held.cases])
    said = np.concatenate([c.predicted.prob[: c.length - 4, column] for c in held.cases])
    want = agreement.scores(agreement.sums(said, true, np.nan_to_num(held.mean)))
    got = good.main[scoring.MODEL]
    np.testing.assert_allclose([s.value for s in got.per_unit["ccc"]], want.ccc, atol=1e-12)
    assert got.macro["macro_skill"].value == pytest.approx(float(want.total_skill))
    rare = [a for a, unit in enumerate(SEED17.units) if unit in RARE]
    assert got.macro["macro_ccc_rare"].value == pytest.approx(float(np.nanmean(want.ccc[rare])))


def test_every_interval_holds_its_own_value(good: Report) -> None:
    for system in good.main.values():
        for score in system.macro.values():
            assert math.isnan(score.low) or score.low <= score.value <= score.high


def test_no_interval_leaves_the_range_of_its_score(good: Report) -> None:
    for system in (*good.main.values(), *good.activity.systems.values()):
        for name, score in system.macro.items():
            low, high = scoring.RANGES[name.removeprefix("macro_").removesuffix("_rare")]
            assert math.isnan(score.low) or low <= score.low <= score.high <= high


def test_a_difference_of_a_system_from_itself_is_exactly_nothing(good: Report) -> None:
    model = good.main[scoring.MODEL]
    none = scoring.differences(model, model, good.over)["macro_ccc"]
    assert (none.value, none.low, none.high) == (0, 0, 0)


def test_a_sessions_thresholds_come_from_the_other_recordings_and_never_from_itself(good: Report) -> None:
    cases, column = good.evidence.cases, HORIZONS.index(4)
    said = [c.predicted.act_prob[: c.length - 4, column] for c in cases]
    made = rivals.model(good.evidence, 4)
    for i in range(len(cases)):
        rest = [j for j in range(len(cases)) if j != i]
        guess, true = np.concatenate([said[j] for j in rest]), np.concatenate([cases[j].active(4) for j in rest])
        want = [classification.best_threshold(guess[:, a], true[:, a]) for a in range(17)]
        np.testing.assert_array_equal(made.thresholds[i], want)
    wanted = "thresholds of model tuned on other recordings of this split: 4 parts, each without its own sessions"
    assert wanted in good.table()


def test_sessions_of_one_recording_are_drawn_and_tuned_together(good: Report) -> None:
    pairs = [replace(c, recording=f"clip {i // 2}") for i, c in enumerate(good.evidence.cases)]
    halves = replace(good.evidence, cases=pairs)
    thresholds = rivals.model(halves, 4).thresholds
    np.testing.assert_array_equal(thresholds[0], thresholds[1])
    assert (thresholds[0] != thresholds[2]).any()
    config = config_of(Path(), Path(), Path(), bound_sessions=0)
    made = report_module.make(halves, replace(config, dataset=good.card["config"]["dataset"]))
    assert made.over.independent == 2
    np.testing.assert_array_equal(made.over.counts[:, 0], made.over.counts[:, 1])
    assert "intervals draw 2 recordings, not 4 sessions" in made.table()
    one = replace(good.evidence, cases=[replace(c, recording="one") for c in good.evidence.cases])
    assert (rivals.model(one, 4).thresholds == 0.5).all()


def test_thresholds_of_a_test_split_come_from_validation_and_from_no_session_of_training(
    dyads: Path, tmp_path: Path
) -> None:
    val, train = (processed.load(dyads, split) for split in ("val", "train"))
    for split, sessions in (("val", val), ("train", train[:3]), ("test", train[3:])):
        processed.write(tmp_path / "data", split, sessions)
    store = store_of(tmp_path / "store", val + train, noise=0.1)
    made = evaluate(config_of(tmp_path / "data", store, tmp_path / "out", bound_sessions=0, split="test"))
    assert made.activity.tuned_on[scoring.MODEL] == "4 validation sessions"
    held = PredictionStore.open(store, au_names=SEED17.units)
    said = np.concatenate([held.read(s.id).act_prob[: s.n_frames - 4, HORIZONS.index(4)] for s in val])
    true = np.concatenate([s.act[4:] for s in val])
    want = [classification.best_threshold(said[:, a], true[:, a]) for a in range(17)]
    assert made.activity.thresholds[scoring.MODEL] == want


def test_f1_and_precision_recall_equal_the_metrics_on_all_frames(good: Report) -> None:
    held, column = good.evidence, HORIZONS.index(4)
    said = np.concatenate([c.predicted.act_prob[: c.length - 4, column] for c in held.cases])
    true = np.concatenate([c.active(4) for c in held.cases])
    for a in range(17):
        area = classification.average_precision(said[:, a], true[:, a])
        assert good.activity.systems[scoring.MODEL].per_unit["auprc"][a].value == pytest.approx(area, nan_ok=True)
    hits = activity.hits(said >= np.full((1, 17), 0.5), true)
    want = [classification.f1(said[:, a], true[:, a], 0.5) for a in range(17)]
    np.testing.assert_allclose(activity.f1(*hits.T), want, atol=1e-12)


def test_the_share_of_the_attainable_bound_is_given_where_the_truth_is_known(good: Report) -> None:
    assert good.bound is not None
    assert good.bound.sessions == 2
    assert good.bound.share_of_skill.value > 1  # it was given the future, which no causal predictor has
    assert "attainable by any causal predictor (2 sessions)" in good.table()


def test_the_report_on_disk_holds_every_table_and_no_bare_nan(written: dict[str, object], good: Report) -> None:
    text = json.dumps(written, allow_nan=False)
    assert '"macro_skill"' in text
    assert set(written["horizons"]) == {"0", "4", "8"}  # pyright: ignore[reportArgumentType]
    assert set(written["macro"]) == set(good.main)  # pyright: ignore[reportArgumentType]
    assert written["macro"]["mean"]["macro_pearson"]["value"] is None  # pyright: ignore[reportIndexIssue]
    assert written["run"]["inputs"]["predictions"]  # pyright: ignore[reportIndexIssue]
    assert written["sessions"] == 4


def test_the_page_stands_alone_with_its_pictures_inside(good: Report) -> None:
    page = (Path(good.card["config"]["out"]) / "report.html").read_text(encoding="utf8")
    assert page.count("data:image/png;base64,") == 7
    assert "http" not in page
    assert "A good session" in page
    assert "A bad session" in page


def test_mimicry_reads_nothing_after_the_moment_of_prediction(good: Report) -> None:
    fitted = rivals.fit(good.evidence, 8)
    assert fitted is not None
    case = good.evidence.cases[0]
    assert case.speaker is not None
    blind = case.speaker.copy()
    blind[200:] = 0
    before = rivals._mimic(case, fitted[0], 8)
    after = rivals._mimic(replace(case, speaker=blind), fitted[0], 8)
    np.testing.assert_array_equal(before[:200], after[:200])
    assert not np.array_equal(before, after)


def test_last_value_is_the_listeners_own_face_one_frame_ago(good: Report) -> None:
    case = good.evidence.cases[0]
    said = rivals._last(case.session.prob, case, 4, np.zeros(17, np.float32))
    np.testing.assert_array_equal(said[1:], case.session.prob[: case.length - 5])


def test_without_the_speakers_units_mimicry_is_left_out_and_said(dyads: Path, tmp_path: Path) -> None:
    sessions = processed.load(dyads, "val")
    for split in processed.SPLITS:
        processed.write(tmp_path / "data", split, processed.load(dyads, split))
    store = store_of(tmp_path / "store", sessions, noise=0.1)
    made = evaluate(config_of(tmp_path / "data", store, tmp_path / "out"))
    assert "mimicry" not in made.main
    assert "mimicry is left out" in made.table()
    assert made.bound is None
    assert set(made.differences()) == {"mean"}


def test_a_unit_that_was_never_annotated_is_skipped_and_named(dyads: Path, tmp_path: Path) -> None:
    for split in processed.SPLITS:
        sessions = processed.load(dyads, split)
        for session in sessions:
            session.prob[:, 12] = np.nan
            session.act[:, 12] = np.nan
        processed.write(tmp_path / "data", split, sessions)
    store = store_of(tmp_path / "store", processed.load(tmp_path / "data", "val"), noise=0.1)
    made = evaluate(config_of(tmp_path / "data", store, tmp_path / "out"))
    assert made.undefined() == ["AU18"]
    assert made.unknown() == ["AU18"]
    assert "units that nobody annotated here are left out: AU18" in made.table()
    assert "units that never vary" not in made.table()
    assert math.isfinite(made.main[scoring.MODEL].macro["macro_ccc"].value)


def test_a_number_that_is_no_probability_is_refused_by_session_unit_and_frame(dyads: Path, tmp_path: Path) -> None:
    sessions = processed.load(dyads, "val")
    store = PredictionStore.open(store_of(tmp_path / "store", sessions, noise=0.1), au_names=SEED17.units)
    said = store.read(sessions[1].id)
    act = said.act_prob.copy()
    act[40, 1, 8] = 1.5
    store.write(sessions[1].id, said.prob.copy(), act)
    wanted = f"predictions of {sessions[1].id}: activation of AU12 is 1.5 at frame 40, 4 frames ahead"
    with pytest.raises(ValueError, match=wanted):
        evaluate(config_of(dyads, tmp_path / "store", tmp_path / "out"))


def test_a_single_session_is_scored_without_pretending_to_an_interval(dyads: Path, tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", processed.load(dyads, "val")[:1], noise=0.1)
    made = evaluate(config_of(dyads, store, tmp_path / "out"))
    score = made.main[scoring.MODEL].macro["macro_ccc"]
    assert math.isfinite(score.value)
    assert math.isnan(score.low)
    assert made.evidence.left_out == [s.id for s in processed.load(dyads, "val")[1:]]
    assert "3 sessions without predictions are left out" in made.table()


def test_an_engine_is_run_by_its_own_command_and_over_training_for_its_draws_alone(
    dyads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / "manifest.json").write_text(json.dumps({"spec": {"au_names": SEED17.units}}), encoding="utf8")
    asked: list[str] = []

    def predict(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        flags = dict(zip(command[3::2], command[4::2], strict=True))
        assert command[:3] == [sys.executable, "-m", "deploy.predict"]
        asked.append(flags["--split"])
        store_of(Path(flags["--out"]), processed.load(dyads, flags["--split"]), noise=0.1)
        return subprocess.CompletedProcess(command, 0, "done", "")

    monkeypatch.setattr(artefact, "subprocess", SimpleNamespace(run=predict))
    config = Config(dataset=dyads, out=tmp_path / "out", engine=engine, resamples=50, bound_sessions=0)
    made = evaluate(config)
    assert asked == ["val"]
    assert made.bound is None
    evaluate(replace(config, samples=1, resamples=2, appropriate_sessions=0))
    assert sorted(asked[1:]) == ["train", "val"]


def test_an_engine_that_fails_is_reported_in_its_own_words(
    dyads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / "manifest.json").write_text(json.dumps({"spec": {"au_names": SEED17.units}}), encoding="utf8")
    failed = subprocess.CompletedProcess([], 2, "", "error: student.onnx is damaged; build it again")
    monkeypatch.setattr(artefact, "subprocess", SimpleNamespace(run=lambda *_, **__: failed))
    with pytest.raises(ValueError, match=r"could not be run over 'val': error: student\.onnx is damaged"):
        evaluate(Config(dataset=dyads, out=tmp_path / "out", engine=engine))


def test_exactly_one_thing_to_score_must_be_given(dyads: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exactly one of --checkpoint, --engine and --predictions; got none"):
        Config(dataset=dyads, out=tmp_path)
    with pytest.raises(ValueError, match="exactly one"):
        Config(dataset=dyads, out=tmp_path, engine=tmp_path, checkpoint=tmp_path)


def test_a_missing_artefact_names_the_command_that_makes_it(dyads: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json: no such file; make it with python -m deploy\.build_engine"):
        evaluate(Config(dataset=dyads, out=tmp_path / "out", engine=tmp_path))


def test_a_horizon_that_nobody_predicted_is_refused_with_those_there_are(dyads: Path, tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", processed.load(dyads, "val"), noise=0.1)
    with pytest.raises(ValueError, match=r"horizon 3 is not predicted; choose one of \[0, 4, 8\]"):
        evaluate(config_of(dyads, store, tmp_path / "out", horizon=3))


def test_the_command_prints_its_table_and_where_the_report_lies(
    dyads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path / "store", processed.load(dyads, "val"), noise=0.1)
    flags = ["--predictions", str(store), "--dataset", str(dyads), "--out", str(tmp_path / "out")]
    assert main([*flags, "--resamples", "50", "--bound-sessions", "0"]) == 0
    said = capsys.readouterr().out
    assert "model minus mimicry" in said
    assert f"report: {tmp_path / 'out' / 'report.html'}" in said


def test_help_of_evaluation_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, distill.evaluate as e\ntry:\n    e.main(['--help'])\n"
        "finally:\n    assert not {'torch', 'matplotlib', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
