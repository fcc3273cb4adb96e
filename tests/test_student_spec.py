"""The student's contract is checked when it is made, travels as plain data, and every preset builds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dyad import config
from dyad.action_units import REACT15
from student.model import Student
from student.spec import FUSIONS, StudentSpec

PRESETS = sorted((Path(__file__).parent.parent / "configs" / "student").glob("*.yaml"))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("d_model", 130, "multiple of heads"),
        ("heads", 0, "heads must be 1 or more"),
        ("crop_px", 60, "multiple of backbone_stride"),
        ("crop_px", 0, "crop_px must be 1 or more"),
        ("horizons", (), "horizons must rise"),
        ("horizons", (0, 2, 2), "horizons must rise"),
        ("horizons", (-1, 0), "horizons must rise"),
        ("fps", 25, "resample the media"),
        ("sample_rate_hz", 44100, "resample the media"),
        ("audio_window_samples", 1600, "fixed at 800"),
        ("dropout", 1.0, "dropout"),
        ("window_frames", 1, "window_frames"),
        ("au_names", (), "au_names"),
        ("au_names", ("AU1", "AU1"), "each once"),
        ("fusion", "sum", "known: concat, cross_attention, transformer"),
    ],
)
def test_a_spec_that_cannot_be_built_is_refused_by_name(field: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StudentSpec().replace(**{field: value})


def test_a_spec_survives_the_way_through_json() -> None:
    spec = StudentSpec(au_names=REACT15.units, fusion="transformer", horizons=(0, 4))
    again = StudentSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.hash() == spec.hash() != StudentSpec().hash()


def test_an_unknown_key_in_a_spec_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'window_frames'"):
        StudentSpec.from_dict({"window_frame": 32})


def test_only_what_changes_the_front_ends_bytes_changes_its_hash() -> None:
    spec = StudentSpec()
    assert spec.front_hash() == spec.replace(d_model=256, fusion="transformer").front_hash()
    assert spec.front_hash() != spec.replace(crop_px=96).front_hash()


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_every_preset_builds_a_student_that_takes_a_step(path: Path) -> None:
    spec = config.load(StudentSpec, path)
    model = Student(spec).eval()
    frames = torch.zeros(1, 1, spec.crop_px, spec.crop_px, 3, dtype=torch.uint8)
    with torch.no_grad():
        logits, _ = model(frames, torch.zeros(1, 1, 800), torch.ones(1, 1, 2), model.init_state(1))
    assert logits.shape == (1, 1, 9, 17, 2)
    assert logits.isfinite().all()


def test_the_three_presets_are_there() -> None:
    assert {"nano", "small", "base"} <= {p.stem for p in PRESETS}
    assert len(FUSIONS) == 3


def test_the_runtime_side_of_the_student_loads_without_torch() -> None:
    code = (
        "import student.spec, student.face, student.frontend, student.front_cache, sys;"
        "print([m for m in ('torch', 'timm', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
