"""The baseline's row: trained at toy size, put beside students that were kept, and written where it is said to be."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import transvae_row
from distill import arms
from distill.baselines import progress
from dyad.action_units import SEED17
from dyad.config import read_yaml
from dyad.layouts import processed
from dyad.metrics import agreement
from dyad.session import Session
from dyad.synthetic.__main__ import main as make_dyads

PRESET = """
baseline: transvae-online
eyes_steps: 1
freeze_eyes: true
steps: 2
batch: 2
clip_frames: 16
validate_every: 1
transvae: {window_frames: 8, context_frames: 16, ahead_frames: 11, crop_px: 32, diversity: 0, samples: 1}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dyads, and a student per seed that says the truth blurred by noise."""
    made = tmp_path_factory.mktemp("row")
    flags = ["--sessions", "6", "--seconds", "3", "--val-share", "0.67", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(made / "dyads"), *flags]) == 0
    (made / "preset.yaml").write_text(PRESET, encoding="utf8")
    (made / "page.md").write_text("# Page\n<!-- transvae:begin -->\nold\n<!-- transvae:end -->\nend\n", encoding="utf8")
    sessions = processed.load(made / "dyads", "val", au_names=SEED17.units)
    for seed in (0, 1):
        keep_student(made / "students" / "distilled" / str(seed) / "scores.npz", sessions, seed)
    return made


def keep_student(path: Path, sessions: list[Session], seed: int) -> None:
    rng, mean = np.random.default_rng(seed), np.full(17, 0.1, np.float32)
    sums: list[list[NDArray[np.float64]]] = []
    for session in sessions:
        noisy = (session.prob + 0.05 * rng.standard_normal(session.prob.shape)).astype(np.float32)
        sums.append([agreement.sums(noisy[h:], session.prob[h:], mean) for h in range(9)])
    arms.keep(path, np.array(sums), np.full((9, 17), 0.5), [s.id for s in sessions])


def flags_of(root: Path, **changes: object) -> list[str]:
    given = {
        "dataset": root / "dyads", "students": root / "students", "arms": "distilled", "work": root / "work",
        "preset": root / "preset.yaml", "results": root / "row.json", "report": root / "page.md", "resamples": 20,
        "offline_steps": 2,
    }  # fmt: skip
    flags = [word for k, v in (given | changes).items() for word in (f"--{k.replace('_', '-')}", str(v))]
    return [*flags, "--seeds", "0", "1", "--student-seeds", "0", "1", "--offline-seeds", "0", "--no-full"]


def test_the_row_stands_below_students_that_know_the_truth_in_file_and_page(root: Path) -> None:
    assert transvae_row.main(flags_of(root)) == 0
    made = json.loads((root / "row.json").read_text(encoding="utf8"))
    assert [row["arm"] for row in made["ahead"]] == ["Trans-VAE online", "distilled"]
    assert [row["arm"] for row in made["at_once"]] == ["Trans-VAE online", "Trans-VAE offline", "distilled"]
    baseline, student = made["ahead"]
    assert len(baseline["by_seed"]["macro CCC"]) == 2
    assert baseline["value"]["macro CCC"] < student["interval"]["macro CCC"][0]
    assert student["difference"]["macro CCC"][1] > 0
    told = made["training"]
    assert told["Trans-VAE online, seed 1"]["frames_seen"] == 2 * 2 * 16
    peeks = {name: run["look_ahead_frames"] for name, run in told.items()}
    assert peeks == {"Trans-VAE online, seed 0": 0, "Trans-VAE online, seed 1": 0, "Trans-VAE offline, seed 0": 89}
    assert [point["step"] for point in told["Trans-VAE offline, seed 0"]["course"]] == [1, 2]
    assert set(told["Trans-VAE online, seed 0"]["course"][0]) == {"step", "skill", "ccc", "varies", "draws", "kl"}
    assert told["Trans-VAE online, seed 0"]["course"][0]["kl"] == pytest.approx(0.8, abs=0.3)  # of a normalised layer
    card = json.loads((root / "work" / "transvae-offline" / "0" / "baseline.json").read_text(encoding="utf8"))
    assert card["run"]["config"]["eyes"] == str(root / "work" / "transvae-online" / "0")
    page = (root / "page.md").read_text(encoding="utf8")
    assert page.startswith("# Page")
    assert "old" not in page
    assert "| Trans-VAE offline |" in page


def test_a_curve_is_flat_when_its_last_quarter_brought_next_to_nothing() -> None:
    rising = [{"step": s, "ccc": s / 1000} for s in (100, 200, 300, 400)]
    level = [*rising[:2], {"step": 300, "ccc": 0.395}, rising[3]]
    assert progress.flatness(rising) == {"ccc_gained_in_the_last_quarter": 0.1, "flat": False}
    assert progress.flatness(level) == {"ccc_gained_in_the_last_quarter": 0.005, "flat": True}


def test_finished_runs_are_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transvae_row.main(flags_of(root))

    def refuse(_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(transvae_row.training, "train", refuse)
    assert transvae_row.main(flags_of(root)) == 0


def test_a_kept_run_of_other_settings_is_refused(root: Path) -> None:
    transvae_row.main(flags_of(root))
    with pytest.raises(ValueError, match="was trained with another steps; remove it"):
        transvae_row.main([*flags_of(root), "--steps", "3"])


def test_students_of_other_sessions_are_refused(root: Path, tmp_path: Path) -> None:
    sessions = processed.load(root / "dyads", "val", au_names=SEED17.units)
    keep_student(tmp_path / "distilled" / "0" / "scores.npz", sessions[:1], 0)
    with pytest.raises(ValueError, match="scored on other sessions"):
        transvae_row.main(flags_of(root, students=tmp_path))
    with pytest.raises(ValueError, match=r"distill.ablate --engines"):
        transvae_row.main(flags_of(root, students=tmp_path / "nowhere"))


def test_the_offline_run_answers_for_what_it_sees() -> None:
    config = transvae_row.Config(steps=7, offline_steps=9)
    offline, online = (transvae_row.settings(config, f"transvae-{n}", 3) for n in ("offline", "online"))
    assert (offline.transvae.ahead_frames, offline.transvae.context_frames, offline.steps) == (0, 0, 9)
    assert (online.seed, online.steps) == (3, 7)
    assert (offline.transvae.normalise, online.transvae.normalise) == ("session", "clip")
    assert online.transvae.ahead_frames == read_yaml(config.preset)["transvae"]["ahead_frames"]
