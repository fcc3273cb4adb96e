"""Arms side by side: trained once, kept, compared session by session; what compares nothing is refused beforehand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from distill import comparison
from distill.ablate import Arms, Config, main
from distill.arms import Run, keep, read, settings, spec_of, train_all
from dyad import config as configuration
from dyad.metrics import agreement
from dyad.synthetic.__main__ import main as make_dyads
from student import checkpoint
from student.spec import StudentSpec

TINY = StudentSpec(crop_px=32, d_model=32, layers=1, heads=2, window_frames=16, ffn=32, visual_channels=8)
ABLATIONS = [p for p in sorted(Path("configs/ablation").glob("*.yaml")) if "arms:" in p.read_text(encoding="utf8")]
Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dyads")
    flags = ["--sessions", "4", "--seconds", "3", "--val-share", "0.5", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), *flags]) == 0
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training preset of a few steps."""
    folder = tmp_path_factory.mktemp("preset")
    configuration.save(TINY, folder / "tiny.yaml")
    preset = {"student": str(folder / "tiny.yaml"), "eyes_steps": 1, "steps": 2, "batch": 2, "clip_frames": 16}
    path = folder / "base.yaml"
    path.write_text(yaml.safe_dump(preset | {"validate_every": 1000, "loss": {"ccc": 0.1}}), encoding="utf8")
    return path


def arms_file(folder: Path, base: Path, arms: dict[str, Any]) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"question": "Which?", "base": str(base), "arms": arms}, sort_keys=False), "utf8")
    return path


TWO: dict[str, Any] = {"as it is": {}, "no CCC": {"loss": {"ccc": 0}}}


def command(arms: Path, dyads: Path, out: Path, *more: str) -> list[str]:
    flags = ["--arms", str(arms), "--dataset", str(dyads), "--out", str(out), "--seeds", "0", "--resamples", "40"]
    return [*flags, "--bound-listeners", "2", "--threads", "1", "--workers", "1", *more]


@pytest.fixture(scope="module")
def done(dyads: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ablation: OUT, with the arms and the report beside it."""
    folder = tmp_path_factory.mktemp("ablation")
    report = folder / "report.md"
    report.write_text("# Before\n\n<!-- mine:begin -->\nold\n<!-- mine:end -->\n\nAfter.\n", encoding="utf8")
    arms = arms_file(folder, base, TWO)
    assert main(command(arms, dyads, folder / "out", "--report", str(report))) == 0
    return folder


# ---- a whole ablation -----------------------------------------------------------------------------------------


def test_figures_and_table_are_written_and_the_table_lands_between_its_marks(done: Path) -> None:
    written = json.loads((done / "out" / "results.json").read_text(encoding="utf8"))
    assert (written["question"], written["sessions"], written["seeds"]) == ("Which?", 2, 1)
    assert [row["arm"] for row in written["arms"]] == list(TWO)
    assert written["arms"][0]["difference"] == {"macro CCC": [0.0, 0.0, 0.0], "skill": [0.0, 0.0, 0.0]}
    assert written["arms"][1]["difference"]["skill"][0] != 0
    assert all(len(row["by_horizon"]) == 9 and len(row["by_unit"]) == 17 for row in written["arms"])
    assert 0 < written["bound_skill"] < 1
    assert written["run"]["command"] == "distill.ablate"
    table = (done / "out" / "table.md").read_text(encoding="utf8")
    assert table.count("\n| as it is | ") == 3, "scores, look-aheads, rare units"
    assert table.count("\n| no CCC | ") == 4, "and seed by seed"
    report = (done / "report.md").read_text(encoding="utf8")
    assert report == f"# Before\n\n<!-- mine:begin -->\n{table}<!-- mine:end -->\n\nAfter.\n"


def test_the_arms_of_a_seed_share_their_eyes_and_differ_in_what_is_behind_them(done: Path) -> None:
    eyes, *arms = (
        checkpoint.load(done / "out" / name / "0" / "checkpoint").state_dict()
        for name in ("eyes", "as-it-is", "no-ccc")
    )
    for name, weight in eyes.items():
        if name.startswith("vision."):
            assert all(torch.equal(arm[name], weight) for arm in arms), name
    assert not torch.equal(arms[0]["heads.out.weight"], arms[1]["heads.out.weight"])


def test_each_arm_was_trained_with_its_own_settings(done: Path) -> None:
    from distill.train import Config as TrainConfig

    kept = [
        configuration.load(TrainConfig, done / "out" / name / "0" / "config.yaml") for name in ("as-it-is", "no-ccc")
    ]
    assert [k.loss.ccc for k in kept] == [0.1, 0]
    assert all(k.freeze_eyes and k.qat_steps == 0 and k.steps == 2 for k in kept)


def test_finished_runs_are_kept_and_a_second_call_trains_nothing(
    done: Path, dyads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [p for p in (done / "out").rglob("*") if p.is_file() and p.parent != done / "out"]
    before = {p: p.stat().st_mtime_ns for p in files}
    first = json.loads((done / "out" / "results.json").read_text(encoding="utf8"))["arms"]
    extra = done / "elsewhere.json"
    assert main(command(done / "mine.yaml", dyads, done / "out", "--results", str(extra))) == 0
    assert {p: p.stat().st_mtime_ns for p in files} == before
    said = capsys.readouterr().out
    assert "--- " not in said
    assert "eyes:" not in said
    assert said.rstrip() == (done / "out" / "table.md").read_text(encoding="utf8").rstrip()
    assert json.loads(extra.read_text(encoding="utf8"))["arms"] == first


def test_a_run_whose_scores_are_lost_is_scored_again_but_not_trained_again(
    done: Path, dyads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = done / "out" / "no-ccc" / "0"
    weights, lines = (run / "checkpoint" / "model.safetensors").read_bytes(), (run / "metrics.jsonl").read_bytes()
    first = (done / "out" / "table.md").read_text(encoding="utf8")
    (run / "scores.npz").unlink()
    assert main(command(done / "mine.yaml", dyads, done / "out")) == 0
    assert "--- no CCC, seed 0" in capsys.readouterr().out
    assert (run / "checkpoint" / "model.safetensors").read_bytes() == weights
    assert (run / "metrics.jsonl").read_bytes() == lines
    assert (done / "out" / "table.md").read_text(encoding="utf8") == first


def test_a_kept_run_is_not_taken_for_one_of_other_settings(done: Path, dyads: Path, base: Path, tmp_path: Path) -> None:
    arms = arms_file(tmp_path, base, {"as it is": {}, "no CCC": {"loss": {"ccc": 0, "focal": 1}}})
    with pytest.raises(ValueError, match=r"no-ccc/0: was trained with another loss; remove it or give another --out"):
        main(command(arms, dyads, done / "out"))


# ---- what is refused before anything trains -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arms", "more", "said"),
    [
        ({"a": {}, "b": {"lerning_rate": 1.0}}, (), r"arm 'b': unknown key 'lerning_rate'; did you mean 'learning_r"),
        ({"a": {}, "b": {"loss": {"cc": 0}}}, (), r"arm 'b': loss: unknown key 'cc'; did you mean 'ccc'"),
        ({"a": {}, "b": {"extra": True}}, (), r"arm 'b' wants extra speakers: give --extra and --extra-labels"),
        ({"a": {}, "b": {"extra": True}}, ("--extra", "x"), r"arm 'b' wants extra speakers"),
        ({"a": {}, "b": {"student": "no/such.yaml"}}, (), r"no/such.yaml: no such file"),
        ({"CCC 0.5": {}, "ccc 0,5": {"loss": {"ccc": 1}}}, (), r"its folder 'ccc-0-5' is empty or taken"),
        ({"a": {}, "Eyes": {}}, (), r"arm 'Eyes': its folder 'eyes' is empty or taken"),
        ({"a": {}, "???": {}}, (), r"arm '\?\?\?': its folder '' is empty or taken"),
        ({"a": {}, "b": {}}, ("--horizon", "9"), r"predicts \(0, .*8\) frames ahead; wanted 0, 1, … 9"),
        ({"alone": {}}, (), r"two arms or more are needed, got \['alone'\]"),
    ],
    ids=lambda x: None if isinstance(x, dict | tuple) else "",
)  # fmt: skip
def test_an_ablation_that_cannot_be_compared_is_refused_before_anything_trains(
    arms: dict[str, Any], more: tuple[str, ...], said: str, base: Path, dyads: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        main(command(arms_file(tmp_path, base, arms), dyads, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


BEGIN, END = "<!-- mine:begin -->", "<!-- mine:end -->"


@pytest.mark.parametrize(
    "text",
    [None, "nothing", BEGIN, END + BEGIN, 2 * (BEGIN + END)],
    ids=["no file", "no marks", "one mark", "turned round", "twice"],
)  # fmt: skip
def test_a_report_without_its_marks_is_refused_before_anything_trains(
    text: str | None, base: Path, dyads: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.md"
    if text is not None:
        report.write_text(text, encoding="utf8")
    with pytest.raises(
        ValueError, match=r"report.md: needs one line <!-- mine:begin --> and one line <!-- mine:end -->"
    ):
        main(command(arms_file(tmp_path, base, TWO), dyads, tmp_path / "out", "--report", str(report)))
    assert not (tmp_path / "out").exists()
    assert not report.exists() or report.read_text(encoding="utf8") == text


def test_only_what_lies_between_the_marks_is_replaced_however_often(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a <!-- x:begin -->\n1\n2<!-- x:end --> b\n<!-- y:begin -->kept<!-- y:end -->", encoding="utf8")
    for text in ("first", "| second |\n| table |"):
        comparison.put_between(page, "x", text)
        assert page.read_text(encoding="utf8") == (
            f"a <!-- x:begin -->\n{text}\n<!-- x:end --> b\n<!-- y:begin -->kept<!-- y:end -->"
        )


# ---- scores of known curves -----------------------------------------------------------------------------------

SESSIONS, HORIZONS, UNITS, FRAMES = 6, 2, 3, 40


def truth() -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.random((FRAMES + 7 * s, UNITS), np.float32) for s in range(SESSIONS)]


def noisy(seed: int, strength: float) -> list[list[NDArray[np.float32]]]:
    """Per horizon, the truth plus noise."""
    rng = np.random.default_rng([1, seed])
    return [[t + strength * rng.standard_normal(t.shape, np.float32) for t in truth()] for _ in range(HORIZONS)]


def run_of(arm: str, seed: int, said: list[list[NDArray[np.float32]]], precision: float = 0.5) -> Run:
    mean = np.concatenate(truth()).mean(axis=0)
    sums = [[agreement.sums(said[h][s], true, mean) for h in range(HORIZONS)] for s, true in enumerate(truth())]
    return Run(arm, seed, np.array(sums), np.full((HORIZONS, UNITS), precision), tuple(map(str, range(len(sums)))))


def concordance(said: list[NDArray[np.float32]]) -> float:
    """Macro CCC over all frames by its textbook formula."""
    p, y = (np.concatenate(x).astype(np.float64) for x in (said, truth()))
    covariance = ((p - p.mean(0)) * (y - y.mean(0))).mean(0)
    return float((2 * covariance / (p.var(0) + y.var(0) + (p.mean(0) - y.mean(0)) ** 2)).mean())


def share_explained(said: list[NDArray[np.float32]]) -> float:
    p, y = (np.concatenate(x).astype(np.float64) for x in (said, truth()))
    return float(1 - ((p - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())


@pytest.fixture(scope="module")
def rows() -> dict[str, comparison.Row]:
    """Two seeds of a noisy arm, of its copy, of a perfect one and of the mean predictor."""
    mean = np.concatenate(truth()).mean(axis=0)
    flat = [[np.broadcast_to(mean, t.shape) for t in truth()] for _ in range(HORIZONS)]
    runs = [
        run
        for seed in (0, 1)
        for run in (
            run_of("noisy", seed, noisy(seed, 0.4), 0.2 + 0.2 * seed),
            run_of("copy", seed, noisy(seed, 0.4)),
            run_of("perfect", seed, [truth()] * HORIZONS),
            run_of("flat", seed, flat),
        )
    ]
    made = comparison.rows_of(runs, 1, 300)
    assert [row.arm for row in made] == ["noisy", "copy", "perfect", "flat"]
    return {row.arm: row for row in made}


def test_scores_equal_their_textbook_formulas_over_all_frames_averaged_over_seeds(
    rows: dict[str, comparison.Row],
) -> None:
    row = rows["noisy"]
    for score, formula in (("macro CCC", concordance), ("skill", share_explained)):
        by_seed = [formula(noisy(seed, 0.4)[1]) for seed in (0, 1)]
        assert row.by_seed[score] == pytest.approx(by_seed, abs=1e-4)
        assert by_seed[0] != pytest.approx(by_seed[1], abs=1e-3)
        assert row.value[score] == pytest.approx(np.mean(by_seed), abs=1e-5)
    assert row.by_horizon == pytest.approx([np.mean([concordance(noisy(s, 0.4)[h]) for s in (0, 1)]) for h in (0, 1)])
    assert row.average_precision == pytest.approx(0.3)


def test_perfect_predictions_score_one_and_the_mean_predictor_nought(rows: dict[str, comparison.Row]) -> None:
    for score in comparison.SCORES:
        assert rows["perfect"].value[score] == pytest.approx(1, abs=1e-9)
        assert rows["perfect"].interval[score] == pytest.approx((1, 1), abs=1e-9)
        assert rows["flat"].value[score] == pytest.approx(0, abs=1e-5)
    assert rows["perfect"].by_unit == [1.0] * UNITS


def test_the_first_arm_and_its_copy_differ_from_it_by_exactly_nothing(rows: dict[str, comparison.Row]) -> None:
    for arm in ("noisy", "copy"):
        assert rows[arm].difference == dict.fromkeys(comparison.SCORES, (0.0, 0.0, 0.0))


def test_intervals_hold_their_values_and_a_clear_difference_excludes_nought(rows: dict[str, comparison.Row]) -> None:
    for row in rows.values():
        for score in comparison.SCORES:
            low, high = row.interval[score]
            assert low - 1e-9 <= row.value[score] <= high + 1e-9
            gain, low, high = row.difference[score]
            assert low - 1e-9 <= gain <= high + 1e-9
            assert gain == pytest.approx(row.value[score] - rows["noisy"].value[score])
    noisy_low, noisy_high = rows["noisy"].interval["skill"]
    assert 0 < noisy_high - noisy_low < 0.5
    assert rows["perfect"].difference["skill"][1] > 0
    assert rows["flat"].difference["macro CCC"][2] < 0


def test_a_unit_that_never_moves_has_no_score_and_spoils_no_other() -> None:
    still = [np.concatenate([t[:, :2], np.full_like(t[:, 2:], 0.25)], axis=1) for t in truth()]
    said = truth()
    mean = np.concatenate(still).mean(axis=0)
    sums = [[agreement.sums(p, t, mean)] for p, t in zip(said, still, strict=True)]
    runs = [Run(arm, 0, np.array(sums), np.full((1, UNITS), 0.5), ("s",)) for arm in ("a", "b")]
    row = comparison.rows_of(runs, 0, 50)[0]
    assert row.by_unit == [1.0, 1.0, None]
    assert row.value["macro CCC"] == pytest.approx(1)


# ---- the ablations that ship ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda p: p.stem)
def test_every_arm_of_every_ablation_that_ships_resolves_to_a_student_and_its_settings(
    path: Path, tmp_path: Path
) -> None:
    given = {"labels": tmp_path / "l", "extra": tmp_path / "e", "extra_labels": tmp_path / "m"}
    config = Config(arms=path, dataset=tmp_path, out=tmp_path / "out", **given)
    arms = configuration.load(Arms, path)
    made = {arm: settings(config, arms, arm, 1) for arm in arms.arms}
    assert len({train.out for train in made.values()}) == len(made)
    for arm, train in made.items():
        assert (train.seed, train.freeze_eyes, train.qat_steps) == (1, True, 0)
        assert spec_of(train).horizons == tuple(range(9))
        assert (train.extra is not None) == bool(arms.arms[arm].get("extra"))
        assert train.labels == Path(arms.arms[arm].get("labels", given["labels"]))
    settled = [configuration.as_dict(train) | {"out": ""} for train in made.values()]
    assert all(one != other for i, one in enumerate(settled) for other in settled[:i]), "two arms are the same"


def test_there_are_ablations_to_load() -> None:
    assert {p.stem for p in ABLATIONS} >= {"distillation", "losses"}


def test_an_arm_changes_one_nested_setting_and_keeps_its_neighbours(base: Path, tmp_path: Path) -> None:
    arms = configuration.load(
        Arms, arms_file(tmp_path, base, {"a": {}, "b": {"loss": {"focal": 1}}, "c": {"steps": 9}})
    )
    config = Config(arms=tmp_path, dataset=tmp_path, out=tmp_path, engines=True)
    a, b, c = (settings(config, arms, arm, 0) for arm in arms.arms)
    assert (b.loss.focal, b.loss.ccc) == (1, 0.1)
    assert (a.steps, c.steps) == (2, 9)
    assert a.qat_steps > 0, "through engines, students are quantised"


def test_without_seeds_nothing_can_be_compared() -> None:
    with pytest.raises(ValueError, match="one seed or more"):
        Config(arms=Path(), dataset=Path(), out=Path(), seeds=())


def test_train_all_gives_the_runs_arm_by_arm_for_each_seed(done: Path, dyads: Path) -> None:
    config = Config(arms=done / "mine.yaml", dataset=dyads, out=done / "out", seeds=(0,))
    runs = train_all(config, configuration.load(Arms, config.arms))
    assert [(run.arm, run.seed) for run in runs] == [("as it is", 0), ("no CCC", 0)]
    assert runs[0].sums.shape == (2, 9, 17, 8)
    assert runs[0].precision.shape == (9, 17)


def test_kept_scores_remember_the_sessions_that_they_are_of(tmp_path: Path) -> None:
    one, other = tmp_path / "a.npz", tmp_path / "b.npz"
    keep(one, np.zeros((2, 1, 1, 8)), np.zeros((1, 1)), ["s1", "s2"])
    keep(other, np.zeros((2, 1, 1, 8)), np.zeros((1, 1)), ["s1", "s3"])
    assert read(one, "a", 0).ids == ("s1", "s2")
    assert read(other, "b", 0).ids != read(one, "a", 0).ids
