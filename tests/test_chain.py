"""Every command of the README, in its order, at toy size: from raw recordings to a robot's face."""

import importlib
import importlib.util
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from deploy.calibration import Calibration
from dyad.action_units import SEED17
from dyad.events import EventStore
from dyad.layouts import processed
from dyad.predictions import PredictionStore
from dyad.soft_labels import SoftLabelStore
from dyad.synthetic import __main__ as synthetic

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf8")
STUDENT = """
crop_px: 32
backbone: mobilenetv4_conv_small_035
d_model: 32
layers: 2
heads: 2
window_frames: 8
ffn: 64
mel_bins: 32
"""
TOY = {
    "dyad.synthetic": ["--sessions", "2", "--seconds", "4", "--voice", "formant"],
    "dyad.prepare": ["--val-share", "0.4"],
    "teacher.tune": ["--steps", "2", "--validate-every", "1", "--batch", "1", "--window.frames", "60"],
    "teacher.label": ["--hop-frames", "60", "--quality.least-spread", "0"],
    "teacher.merge": [],
    "dyad.stats": [],
    "distill.train": ["--eyes-steps", "1", "--steps", "2", "--qat-steps", "2", "--batch", "1", "--clip-frames", "32"],
    "deploy.build_engine": ["--steps", "20"],
    "distill.ablate": ["--seeds", "0", "--resamples", "20", "--bound-listeners", "0"],
    "distill.evaluate": ["--resamples", "20", "--bound-sessions", "0", "--fitting-sessions", "1"],
    "deploy.run": ["--seconds", "1"],
}
ABLATION = {"question": "Does it run?", "arms": {"hard": {"loss": {"soft": 0}}, "both": {}}}


def commands() -> list[tuple[str, list[str]]]:
    """(module, arguments) of every `uv run python -m …` line in the README's code blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    words = [shlex.split(line) for line in lines if line.startswith("uv run python -m ")]
    return [(w[4], w[5:]) for w in words]


def is_live(module: str, arguments: list[str]) -> bool:
    """Whether a command wants devices, a network or a robot."""
    words = " ".join(arguments)
    return module in ("deploy.controller", "deploy.calibrate") or "camera:" in words or "tcp:" in words


def call(module: str, arguments: list[str]) -> int:
    package = importlib.util.find_spec(module)
    assert package is not None
    entry = f"{module}.__main__" if package.submodule_search_locations else module
    return importlib.import_module(entry).main(arguments)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recorded pairs, as a user would bring them: video, sound, a table of action units."""
    folder = tmp_path_factory.mktemp("raw")
    made = folder / "made"
    given = ["--out", str(made), "--sessions", "3", "--seconds", "4", "--seed", "2", "--voice", "formant"]
    assert synthetic.main(given) == 0
    sessions = [s for split in processed.SPLITS for s in processed.load(made, split)]
    target = folder / "raw"
    target.mkdir()
    for i, session in enumerate(sessions, start=1):
        shutil.copy(session.speaker_video_path, target / f"s{i:02d}_speaker.mp4")
        shutil.copy(session.speaker_audio_path, target / f"s{i:02d}_speaker.wav")
        names = [f"{u}_{kind}" for u in SEED17.units for kind in ("prob", "act")]
        rows = np.stack([session.prob, session.act], axis=-1).reshape(session.n_frames, -1)
        table = ["frame,timestamp," + ",".join(names)]
        table += [f"{t},{t / 30:.5f}," + ",".join(f"{v:.5g}" for v in row) for t, row in enumerate(rows)]
        (target / f"s{i:02d}_listener.csv").write_text("\n".join(table) + "\n", encoding="utf8")
    return target


def test_the_readmes_chain_runs_from_raw_recordings_to_a_face(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    shutil.copytree(raw, tmp_path / "data" / "raw")
    shutil.copytree(raw, tmp_path / "data" / "more")
    for table in (tmp_path / "data" / "more").iterdir():
        if table.suffix == ".csv":
            table.unlink()
        else:
            table.rename(table.with_name(f"more_{table.name}"))
    (tmp_path / "student.yaml").write_text(STUDENT, encoding="utf8")
    toy = {"student": str(tmp_path / "student.yaml"), "eyes_steps": 1, "steps": 2, "batch": 1, "clip_frames": 32}
    (tmp_path / "base.yaml").write_text(json.dumps(toy), encoding="utf8")
    (tmp_path / "arms.yaml").write_text(json.dumps(ABLATION | {"base": str(tmp_path / "base.yaml")}), encoding="utf8")
    done = []
    for module, arguments in commands():
        if module == "dyad.synthetic" or "ray" in arguments or is_live(module, arguments):
            continue  # each has a test of its own
        given = [re.sub(r"^(data|out)/", f"{tmp_path}/\\1/", a) for a in arguments]
        if module == "distill.ablate":
            given[given.index("--arms") + 1] = str(tmp_path / "arms.yaml")
        if module == "distill.train":
            given += ["--student", str(tmp_path / "student.yaml")]
        if module == "deploy.run":
            given += ["--save", str(tmp_path / "out" / "run.mp4")]
            if "--engine" not in given:
                continue  # the packaged engine has a test of its own
        assert call(module, [*given, *TOY[module]]) == 0, module
        done.append(module)
    assert set(done) == set(TOY) - {"dyad.synthetic"}
    assert len(list((tmp_path / "out" / "formats").iterdir())) == 5
    out = tmp_path / "out"
    labels = SoftLabelStore.open(out / "labels")
    assert len(labels.ids()) == 3
    assert EventStore.open(out / "labels").ids() == labels.ids()
    merged = SoftLabelStore.open(out / "labels_merged")
    np.testing.assert_allclose(*(s.read(labels.ids()[0]).prob for s in (labels, merged)), atol=1e-4)
    assert (out / "stats" / "stats.html").is_file()
    assert (out / "engine" / "manifest.json").is_file()
    assert (out / "evaluation" / "report.json").is_file()
    assert "<html" in (out / "evaluation" / "report.html").read_text(encoding="utf8").lower()
    report = json.loads((out / "run.json").read_text(encoding="utf8"))
    assert report["ticks"] + report["missed_ticks"] >= 29
    assert report["fastest_of_limit"] <= 1 + 1e-6
    assert (out / "run.mp4").stat().st_size > 10_000
    store = PredictionStore.open(out / "evaluation" / "predictions" / "val", au_names=SEED17.units)
    said = store.read(store.ids()[0])
    assert said.prob.shape[1:] == (9, 17)
    assert 0 <= said.prob.min() < said.prob.max() <= 1
    assert "glass to motor" in capsys.readouterr().out


def test_the_readmes_controller_is_driven_by_its_loop_and_a_camera_is_followed(tmp_path: Path) -> None:
    live = [(m, a) for m, a in commands() if is_live(m, a)]
    assert [m for m, _ in live] == ["deploy.run", "deploy.controller", "deploy.run", "deploy.calibrate"]
    (_, camera), (_, controller), (_, remote), (_, calibrate) = live
    kept = ["--black-box", str(tmp_path / "box"), "--report", str(tmp_path / "run.json")]
    camera[camera.index("camera:0")] = "camera:lavfi:testsrc=size=320x240:rate=30"  # FFmpeg's own, where there is none
    camera[camera.index("mic:default")] = "none"
    camera[camera.index("--seconds") + 1] = "1"
    assert call("deploy.run", [*camera, *kept]) == 0
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf8"))["source_counts"]["pictures"] > 10

    controller[controller.index("127.0.0.1:7030")] = "127.0.0.1:0"
    line = [sys.executable, "-m", "deploy.controller", *controller, "--http", "", "--black-box", str(tmp_path / "far")]
    with subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split("ready: ")[1].strip()
        remote[remote.index("tcp://127.0.0.1:7030")] = address
        assert call("deploy.run", [*remote, "--seconds", "1", *kept]) == 0
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    report = json.loads((tmp_path / "run.json").read_text(encoding="utf8"))
    assert report["controller"]["counts"]["taken"] > 10
    assert process.returncode == 128 + signal.SIGTERM

    calibrate[calibrate.index("out/sim.yaml")] = str(tmp_path / "sim.yaml")
    assert call("deploy.calibrate", [*calibrate, "--channels", "jaw"]) == 0
    assert Calibration.load("sim", tmp_path).dead_time_s == pytest.approx(0.04, abs=0.02)


def test_the_readme_shows_the_synthetic_command_as_it_is(tmp_path: Path) -> None:
    module, arguments = next(c for c in commands() if c[0] == "dyad.synthetic")
    given = [re.sub(r"^data/", f"{tmp_path}/", a) for a in arguments]
    given[given.index("--sessions") + 1] = "2"
    assert call(module, [*given, "--seconds", "2", "--no-media"]) == 0
    assert len(processed.load(tmp_path / "talks", "train")) == 1


def test_every_command_of_the_makefile_is_one_that_exists() -> None:
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text(encoding="utf8")
    for module in re.findall(r"\$\(PY\) ([\w.]+)", makefile):
        assert importlib.util.find_spec(module) is not None, module
