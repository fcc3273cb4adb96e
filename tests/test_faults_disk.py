"""A disk that takes no more: the sentence names the file, nothing is left half-written, and what was whole stays whole.

The fault is the operating system's own: the process under test may write no file beyond a few bytes (RLIMIT_FSIZE), so
that `write` fails in the middle of a file, as on a full disk; only the number of the error differs.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_engine
from conftest import REPOSITORY

LIMIT = """
import resource, signal, sys
def full(size=0): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
"""
RUN = """
full(int(sys.argv[1]))
del sys.argv[1]
from deploy import run
from dyad.config import run_main
run_main(run.main)
"""


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A process that can make its own disk full with `full(bytes)`; pipes are not limited."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    line = [sys.executable, "-c", LIMIT + code, *map(str, arguments)]
    return subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)


def played(folder: Path, limit_bytes: int, *flags: object) -> subprocess.CompletedProcess[str]:
    """One second of the packaged clip with an engine of a few operators; the robot is home before it writes."""
    engine = tiny_engine.write(folder / "engine")
    line = ["--robot", "--engine", engine, "--seconds", 1, "--black-box", folder / "box"]
    return python(RUN, limit_bytes, *line, *flags)


def left(folder: Path) -> list[str]:
    """Names of the files of a run, whole or not."""
    return sorted(p.name for p in folder.iterdir() if p.is_file())


@pytest.fixture(scope="module")
def half_filmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run whose report has room and whose video has not."""
    folder = tmp_path_factory.mktemp("run")
    return folder, played(folder, 20_000, "--save", folder / "run.mp4", "--report", folder / "run.json")


def test_a_disk_that_fills_up_while_the_video_is_written_leaves_no_half_video(
    half_filmed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = half_filmed
    assert done.returncode == 2
    assert " 0 refused; face in " in done.stdout, "what was measured is told first"
    assert done.stderr.startswith(f"error: {folder / 'run.mp4'}: file too large; ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not {"run.mp4", "run.mp4.part"} & set(left(folder))


def test_a_video_that_cannot_be_written_does_not_cost_the_report(
    half_filmed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    assert left(half_filmed[0]) == ["run.json"]


def test_a_disk_that_fills_up_while_the_report_is_written_leaves_the_old_report(tmp_path: Path) -> None:
    where = tmp_path / "run.json"
    where.write_text('{"of": "yesterday"}', encoding="utf8")
    done = played(tmp_path, 500, "--no-video", "--report", where)
    assert done.returncode == 2
    assert " 0 refused; face in " in done.stdout
    assert "too large" in done.stderr.lower()
    assert len(done.stderr.strip().splitlines()) == 1
    assert left(tmp_path) == ["run.json"]
    assert json.loads(where.read_text(encoding="utf8")) == {"of": "yesterday"}


WRITE = """
from dyad.config import run_main
from dyad.provenance import write_json
full(10)
run_main(lambda _: write_json(sys.argv[1], list(range(100))) or 0)
"""


def test_a_full_disk_is_told_with_the_file_that_found_no_room(tmp_path: Path) -> None:
    done = python(WRITE, tmp_path / "card.json")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'card.json'}: file too large; ")
    assert left(tmp_path) == []


BOX = """
import pathlib
import numpy as np
from deploy.motion.states import Moment
from deploy.safety.black_box import BlackBox
from dyad.clock import FakeClock
clock, pose = FakeClock(), np.zeros(2)
box = BlackBox(pathlib.Path(sys.argv[1]), clock, robot="it", channels=("a", "b"), rate_hz=60.0)
def live(seconds):
    for _ in range(int(seconds * 60)):
        clock.advance(1 / 60)
        box.watch(Moment(clock.now_s(), clock.now_s(), pose, pose, None, "following"))
        box.write_due(clock.now_s())
live(5)
full(1000)
box.fault("the engine broke")
live(5)
print("first", len(box.files), sorted(p.name for p in pathlib.Path(sys.argv[1]).iterdir()))
full(resource.RLIM_INFINITY)
box.fault("the engine broke again")
live(12)
print("second", len(box.files))
"""


def test_a_black_box_that_finds_no_room_is_said_and_the_robot_goes_on(tmp_path: Path) -> None:
    done = python(BOX, tmp_path / "box")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["first 0 []", "second 1"], "written again once there is room"
    assert "the robot goes on without it" in done.stderr


STORE = """
import pathlib
import numpy as np
from dyad.action_units import SEED17
from dyad.soft_labels import SoftLabelStore
store = SoftLabelStore.create(pathlib.Path(sys.argv[1]), au_names=SEED17.units, teacher_hash="it", run={})
labels = np.full((3000, 17), 0.5, np.float32), np.zeros((3000, 17), np.float32), np.ones((3000, 17), np.float32)
store.write("whole", *labels)
full(100_000)
try:
    store.write("half", *labels)
except (ValueError, OSError) as error:
    print("refused:", type(error).__name__)
full(resource.RLIM_INFINITY)
print(store.ids(), list(store.broken()), len(store.read("whole").prob))
store.write("half", *labels)
print(store.ids())
"""


def test_labelling_onto_a_full_disk_leaves_whole_shards_and_no_half_one(tmp_path: Path) -> None:
    done = python(STORE, tmp_path / "store")
    assert done.returncode == 0, done.stderr
    refused, then, at_last = done.stdout.splitlines()
    assert refused.startswith("refused: ")
    assert then == "['whole'] [] 3000"
    assert at_last == "['half', 'whole']"


EXPORT = """
import pathlib, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, "tests")
import tiny_student, torch
from deploy import build_engine, export
from dyad.config import run_main
from student import checkpoint
from student.model import Student
folder = pathlib.Path(sys.argv[1])
torch.manual_seed(0)
checkpoint.save(folder / "made", Student(tiny_student.SPEC).eval(), {})
(folder / "engine").mkdir()
export.export = lambda model, path: path.write_bytes(bytes(500_000))  # as many bytes, without the seconds they cost
full(50_000)
sys.argv[1:] = ["--checkpoint", str(folder / "made"), "--out", str(folder / "engine"), "--steps", "2"]
sys.argv += ["--precision", "float32"]
run_main(build_engine.main)
"""


def test_exporting_onto_a_full_disk_leaves_no_half_engine(tmp_path: Path) -> None:
    done = python(EXPORT, tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "too large" in done.stderr.lower()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["engine", "made"]
    assert not list((tmp_path / "engine").iterdir())
