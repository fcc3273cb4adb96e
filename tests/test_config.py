"""Configurations: presets, flags over presets, and mistakes answered in one sentence."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from dyad import config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimiser:
    """A nested part."""

    learning_rate: float = 1e-3
    """Step size."""
    betas: tuple[float, ...] = (0.9, 0.95)
    """Decay of the averages."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """What the tests fill in."""

    out: Path
    """Where to write."""
    steps: int = 10
    """Updates."""
    resume: bool = False
    """Go on with an earlier run."""
    note: str | None = None
    """A remark."""
    optimiser: Optimiser = dataclasses.field(default_factory=Optimiser)
    """How to step."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"--steps {self.steps}: wanted at least 1")


def parse(*argv: str) -> Train:
    return config.parse(Train, list(argv), prog="train", description="Train.")


def preset(folder: Path, text: str) -> Path:
    path = folder / "preset.yaml"
    path.write_text(text, encoding="utf8")
    return path


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(*argv)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_flag_wins_over_the_preset_and_the_preset_over_the_default(tmp_path: Path) -> None:
    path = preset(tmp_path, "steps: 20\nnote: from the preset\noptimiser:\n  learning_rate: 1e-4\n")
    got = parse("--config", str(path), "--out", "x", "--steps", "30", "--resume")
    assert (got.steps, got.note, got.resume, got.out) == (30, "from the preset", True, Path("x"))
    assert got.optimiser == Optimiser(learning_rate=1e-4)


def test_a_required_value_may_come_from_the_preset(tmp_path: Path) -> None:
    assert parse(f"--config={preset(tmp_path, 'out: here')}").out == Path("here")


def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = preset(tmp_path, "optimiser:\n  lerning_rate: 0.1\n")
    said = refusal(capsys, "--config", str(path), "--out", "x")
    assert said == f"error: {path}: optimiser: unknown key 'lerning_rate'; did you mean 'learning_rate'?\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: many", "steps: wanted int, got 'many'"),
        ("steps: true", "steps: wanted int, got True"),
        ("optimiser:\n  learning_rate: fast", "learning_rate: wanted a number, got 'fast'"),
        ("optimiser:\n  betas: 0.9", "betas: wanted a list, got 0.9"),
        ("- a\n- b", "wanted keys and values, got list"),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    answer = refusal(capsys, "--config", str(preset(tmp_path, text)), "--out", "x")
    assert said in answer
    assert str(tmp_path / "preset.yaml") in answer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"steps: 3\noptimiser: [1\n", "line 3: not valid YAML (expected ',' or ']', but got '<stream end>')"),
        (b"steps: 3\n  note: x\n", "line 2: not valid YAML (mapping values are not allowed here)"),
        (b"steps: *there\n", "line 1: not valid YAML (found undefined alias 'there')"),
        (b"steps: !!python/object:os.system 3\n", "line 1: not valid YAML (could not determine a constructor for"),
        (b"steps: 3\nnote: a\0b\n", "line 2: not valid YAML (special characters are not allowed)"),
        (b"note: \xff\n", "not valid YAML (it is not UTF-8 text)"),
        (b"steps: 3\nnote: x\nsteps: 4\n", "line 3: the key 'steps' is there a second time, first in line 1; keep one"),
        (b"optimiser:\n  betas: [1]\n  betas: [2]\n", "line 3: the key 'betas' is there a second time"),
        (b"optimiser: {betas: [1], betas: [2]}\n", "line 1: the key 'betas' is there a second time"),
        (b"? [a]\n: 3\n", "line 1: not valid YAML (found unhashable key)"),
    ],
)
def test_a_broken_file_is_refused_in_one_line_with_its_name_and_the_line_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes, said: str
) -> None:
    path = tmp_path / "preset.yaml"
    path.write_bytes(text)
    answer = refusal(capsys, "--config", str(path), "--out", "x")
    assert answer.startswith(f"error: {path}: {said}")
    assert answer.count("\n") == 1
    assert "unicode string" not in answer


def test_keys_that_an_alias_or_a_merge_brings_are_not_there_twice(tmp_path: Path) -> None:
    path = preset(tmp_path, "a: &same {x: 1, y: 2}\nb: *same\nc:\n  <<: *same\n  x: 3\n")
    assert config.read_yaml(path) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"x": 3, "y": 2}}


def test_what_a_range_check_refuses_is_said_with_the_file_it_stands_in(tmp_path: Path) -> None:
    path = preset(tmp_path, "out: x\nsteps: 0\n")
    with pytest.raises(ValueError, match=r"preset\.yaml: --steps 0: wanted at least 1$"):
        config.load(Train, path)


def test_a_missing_preset_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yaml: no such file" in refusal(capsys, "--config", "nowhere.yaml", "--out", "x")
    assert "--config wants the path" in refusal(capsys, "--out", "x", "--config")


def test_a_value_out_of_range_ends_with_one_line_and_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    said = "error: --steps 0: wanted at least 1; see train --help\n"
    assert refusal(capsys, "--out", "x", "--steps", "0") == said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--out", "x", "--stepz", "3"], "Unrecognized options: --stepz, 3; Perhaps you meant: --steps INT"),
        (["--steps", "3"], "Missing from train: --out PATH"),
        (["--out", "x", "--steps", "many"], "Error parsing --steps: invalid literal for int() with base 10: 'many'"),
    ],
)
def test_a_mistaken_command_line_ends_with_one_line_that_names_the_flag(
    capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    answer = refusal(capsys, *argv)
    assert answer.startswith(f"error: {said}")
    assert answer.count("\n") == 1


def test_what_is_saved_loads_back_equal(tmp_path: Path) -> None:
    written = Train(out=Path("a/b"), note="ü", optimiser=Optimiser(betas=(0.5,)))
    config.save(written, tmp_path / "deep" / "config.yaml")
    assert config.load(Train, tmp_path / "deep" / "config.yaml") == written


def ended_by(error: BaseException | int, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    def main(argv: list[str] | None) -> int:
        if isinstance(error, BaseException):
            raise error
        return error

    with pytest.raises(SystemExit) as ended:
        config.run_main(main)
    return ended.value.code, capsys.readouterr().err


def test_a_users_mistake_becomes_one_line_and_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended_by(ValueError("a.mp4: too short"), capsys) == (2, "error: a.mp4: too short\n")
    assert ended_by(KeyboardInterrupt(), capsys) == (130, "interrupted\n")
    assert ended_by(3, capsys) == (3, "")


def test_a_full_disk_and_a_locked_folder_name_the_file_and_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    full = ended_by(OSError(28, "No space left on device", "out/a.npz.part"), capsys)
    assert full == (2, "error: out/a.npz: no space left on device; free some space and start again\n")
    locked = ended_by(PermissionError(13, "Permission denied", "/out"), capsys)
    assert locked == (2, "error: /out: permission denied; give a place that you may write to\n")


def test_a_programming_mistake_is_not_hidden_from_us() -> None:
    def main(argv: list[str] | None) -> int:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        config.run_main(main)


@pytest.mark.parametrize("command", ["dyad.prepare", "dyad.synthetic"])
def test_help_of_the_kernels_commands_imports_nothing_heavy(command: str) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['{command}', '--help']\n"
        f"try: runpy.run_module('{command}', run_name='__main__', alter_sys=False)\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'datasets', 'av', 'cv2', 'transformers', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: python -m " + command in done.stdout


@pytest.mark.parametrize("command", ["deploy.run", "deploy.controller", "deploy.calibrate"])
def test_ctrl_c_while_a_command_loads_its_libraries_is_one_quiet_line(command: str) -> None:
    """Before the first of them only our own modules and Python's are loaded; nothing has moved yet."""
    code = (
        "import sys, runpy; sys.argv = ['x', '--config', 'configs/robots/sim.yaml']\n"
        "class CtrlC:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('yaml', 'tyro', 'numpy', 'importlib.metadata'): raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, CtrlC())\n"
        f"runpy.run_module({command!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "interrupted\n"
    assert abs(done.returncode) in (130, 2)  # Python ends itself by the signal where a frame of exec() was cut


def test_the_presets_that_ship_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = config.read_yaml("configs/robots/sim.yaml")
    monkeypatch.chdir(tmp_path)
    assert config.read_yaml("configs/robots/sim.yaml") == here
    (tmp_path / "configs" / "robots").mkdir(parents=True)
    (tmp_path / "configs" / "robots" / "sim.yaml").write_text("robot: mine", encoding="utf8")
    assert config.read_yaml("configs/robots/sim.yaml") == {"robot": "mine"}, "the user's own file comes first"
    with pytest.raises(ValueError, match=r"configs/robots/sin\.yaml: no such file"):
        config.read_yaml("configs/robots/sin.yaml")
