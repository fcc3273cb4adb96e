"""A checkpoint gives back the same student, and says by name what does not fit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from student import calibration, checkpoint
from student.model import Student
from student.spec import StudentSpec

SPEC = StudentSpec(
    crop_px=32, backbone="mobilenetv4_conv_small_035", d_model=16, layers=1, heads=2, window_frames=4, ffn=16,
    conv_kernel=3, mel_bins=16, visual_channels=4, horizons=(0, 1),
)  # fmt: skip


def inputs(frames: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    maker = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (1, frames, 32, 32, 3), dtype=torch.uint8, generator=maker)
    return pictures, 0.1 * torch.randn(1, frames, 800, generator=maker), torch.ones(1, frames, 2)


def answer(model: Student) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(*inputs(), model.init_state(1))[0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    torch.manual_seed(0)
    model = Student(SPEC)
    model.vision.calibrate(inputs(8)[0][0])
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    checkpoint.save(folder, model, {"command": "test"})
    return folder, answer(model)


def copy_of(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_saved_student_answers_the_same_when_loaded(saved: tuple[Path, torch.Tensor]) -> None:
    model = checkpoint.load(saved[0])
    assert model.spec == SPEC
    assert not model.training
    torch.testing.assert_close(answer(model), saved[1], atol=0, rtol=0)
    assert sorted(p.name for p in saved[0].iterdir()) == ["model.safetensors", "run.json", "spec.json"]


def test_a_quantised_student_answers_the_same_when_loaded(saved: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    model = calibration.prepare(checkpoint.load(saved[0]), [inputs(4)])
    checkpoint.save(tmp_path / "int8", model, {})
    again = checkpoint.load(tmp_path / "int8")
    assert calibration.count_quantised(again) == calibration.count_quantised(model) > 10
    torch.testing.assert_close(answer(again), answer(model), atol=0, rtol=0)


def test_saving_over_a_checkpoint_replaces_all_of_it(saved: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder = copy_of(saved[0], tmp_path / "c")
    (folder / "quant.json").write_text("{}")
    checkpoint.save(folder, checkpoint.load(saved[0]), {})
    assert sorted(p.name for p in folder.iterdir()) == ["model.safetensors", "run.json", "spec.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_folder_without_a_checkpoint_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint there .*distill\.train"):
        checkpoint.load(tmp_path)


def test_a_truncated_weights_file_is_refused_by_name(saved: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder = copy_of(saved[0], tmp_path / "c")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged or missing"):
        checkpoint.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged or missing"):
        checkpoint.load(folder)


@pytest.mark.parametrize("change", ["units", "width", "missing", "extra"])
def test_weights_that_do_not_fit_the_spec_are_refused_by_tensor(
    saved: tuple[Path, torch.Tensor], tmp_path: Path, change: str
) -> None:
    folder = copy_of(saved[0], tmp_path / "c")
    spec, tensors = SPEC.to_dict(), load_file(str(folder / "model.safetensors"))
    if change == "units":
        spec["au_names"] = spec["au_names"][:15]
    elif change == "width":
        spec["ffn"] = 24
    elif change == "missing":
        del tensors["heads.out.bias"]
    else:
        tensors["heads.third"] = torch.zeros(1)
    (folder / "spec.json").write_text(json.dumps(spec))
    save_file(tensors, str(folder / "model.safetensors"))
    named = {"width": r"layers\.0\.(down|up)", "extra": r"heads\.third"}.get(change, r"heads\.out")
    with pytest.raises(ValueError, match=rf"does not fit spec\.json; differing: .*{named}"):
        checkpoint.load(folder)


def test_a_foreign_key_in_the_spec_file_is_refused_with_the_file_named(
    saved: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    folder = copy_of(saved[0], tmp_path / "c")
    (folder / "spec.json").write_text(json.dumps({**SPEC.to_dict(), "layer": 3}))
    with pytest.raises(ValueError, match=r"spec\.json: unknown key 'layer'; did you mean 'layers'"):
        checkpoint.load(folder)


def test_heads_start_at_the_base_rates_of_every_unit() -> None:
    model = Student(SPEC)
    rates = torch.linspace(0.0, 0.9, 17)
    model.heads.start_at(rates, rates.flip(0))
    with torch.no_grad():
        model.heads.out.weight.zero_()
    got = torch.sigmoid(answer(model))
    torch.testing.assert_close(got[0, 0, 1, :, 0], rates.clamp(1e-3, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(got[0, 2, 0, :, 1], rates.flip(0).clamp(1e-3, 1), atol=1e-5, rtol=0)
