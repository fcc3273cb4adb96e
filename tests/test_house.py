"""The house keeps its promises: quick help without torch, presets that load, imports that point down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig

from deploy.calibration import Calibration
from distill.ablate import Arms
from distill.train import Config as TrainConfig
from dyad import config as configuration
from student.spec import StudentSpec
from teacher.tune import Config as TuneConfig

REPOSITORY = Path(__file__).resolve().parent.parent
COMMANDS = (
    "dyad.synthetic",
    "dyad.prepare",
    "dyad.stats",
    "teacher.tune",
    "teacher.merge",
    "teacher.label",
    "distill.train",
    "distill.evaluate",
    "distill.baselines.predict",
    "deploy.build_engine",
    "deploy.predict",
    "deploy.calibrate",
    "deploy.controller",
    "deploy.run",
)
TYPES = {
    "student": StudentSpec,
    "teacher": TuneConfig,
    "distill": TrainConfig,
    "students": StudentSpec,
    "ablation": Arms,
}
NEED_TORCH = ("deploy.builder", "deploy.export", "deploy.onnx_flavours")
"""What only `deploy.build_engine` loads."""
HEAVY = ("torch", "transformers", "datasets", "onnx", "mujoco", "cv2")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_importing_anything_heavy(command: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--help']\n"
        f"try:\n    runpy.run_module({command!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"assert not set({HEAVY!r}) & set(sys.modules), set({HEAVY!r}) & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs").rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_every_preset_fills_its_configuration(path: Path) -> None:
    if path.parent.name == "robots":
        assert Calibration.load(path.stem).robot == path.stem
        return
    kind = TYPES[path.parent.name]
    content = configuration.read_yaml(path)
    if "compute_environment" in content:  # how accelerate launches, read by accelerate
        assert ClusterConfig.from_yaml_file(str(path)).fsdp_config["fsdp_version"] == 2
        return
    needed = {"dataset": "data", "out": "out"} if kind in (TrainConfig, TuneConfig) else {}
    filled = configuration.from_dict(kind, needed | content, where=str(path))
    for key, value in content.items():
        if isinstance(value, int | bool):
            assert getattr(filled, key) == value


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
def test_an_unknown_key_is_refused_with_the_nearest(kind: type) -> None:
    known = next(iter(kind.__dataclass_fields__))
    with pytest.raises(ValueError, match=f"unknown key '{known}x'; did you mean '{known}'"):
        configuration.from_dict(kind, {f"{known}x": 1}, where="configs/x.yaml")


def test_the_kernel_and_the_loop_import_no_torch() -> None:
    names = []
    for package in ("dyad", "deploy"):
        for path in (REPOSITORY / package).rglob("*.py"):
            name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
            if not name.endswith("__main__") and name not in NEED_TORCH:
                names.append(name)
    code = (
        "import sys, importlib, student.spec, student.frontend, student.front_cache\n"
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


def test_every_module_opens_with_a_docstring() -> None:
    for package in ("dyad", "student", "teacher", "distill", "deploy"):
        for path in (REPOSITORY / package).rglob("*.py"):
            assert (ast.get_docstring(ast.parse(path.read_text(encoding="utf8"))) or "").strip(), path
