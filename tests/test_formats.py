"""Every format of one checkpoint says what torch says, describes itself, and is left out when it does not."""

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_student
import torch

from deploy import build_engine, builder, engines, formats, parity, post_training
from deploy.manifest import Manifest
from dyad.provenance import sha256_file
from student import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
STEPS = 40


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny_student.write(tmp_path_factory.mktemp("checkpoints"))


def build(source: Path, out: Path, *flags: str) -> Path:
    assert build_engine.main(["--checkpoint", str(source), "--out", str(out), "--steps", str(STEPS), *flags]) == 0
    return out


@pytest.fixture(scope="module")
def quantised(checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkpoints[1], tmp_path_factory.mktemp("all") / "quantised", "--format", "all")


@pytest.fixture(scope="module")
def plain(checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkpoints[0], tmp_path_factory.mktemp("all") / "float", "--format", "all")


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_format_of_a_quantised_student_steps_as_torch_does(
    name: str, quantised: Path, checkpoints: tuple[Path, Path]
) -> None:
    stream = parity.recorded_stream(tiny_student.SPEC, 20)
    model = checkpoint.load(checkpoints[1])
    if name == "onnx":
        model = formats.freeze(model, rounding=False)
    says = parity.run_engine(engines.load(quantised / name), stream)
    gap = np.abs(says - builder.run_torch(model, stream))  # pyright: ignore[reportArgumentType]
    assert gap.max() < 1e-5 if name == "onnx" else gap.mean() < parity.MEAN_INT8


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_format_of_a_float_student_steps_as_torch_does(
    name: str, plain: Path, checkpoints: tuple[Path, Path]
) -> None:
    stream = parity.recorded_stream(tiny_student.SPEC, 20)
    says = parity.run_engine(engines.load(plain / name), stream)
    gap = np.abs(says - builder.run_torch(checkpoint.load(checkpoints[0]), stream))
    assert gap.mean() < 0.05 if name == "quantized" else gap.max() < 1e-5


@pytest.mark.parametrize("name", formats.FORMATS)
def test_the_description_beside_a_format_is_enough_to_call_it(name: str, quantised: Path) -> None:
    folder, spec = quantised / name, tiny_student.SPEC
    info = json.loads((folder / formats.INFO).read_text(encoding="utf8"))
    assert info["sha256"] == sha256_file(folder / info["file"])
    assert info["sizes_bytes"][info["file"]] == (folder / info["file"]).stat().st_size
    assert info["au_names"] == list(spec.au_names)
    assert info["horizons_frames"] == list(spec.horizons)
    assert info["precision"] == ("float32" if name == "onnx" else "int8")
    assert info["parity_with_torch"]["steps"] == STEPS
    kinds = {"float32": np.float32, "uint8": np.uint8}
    tensors = {t["name"]: np.zeros(t["shape"], kinds[t["dtype"]]) for t in info["inputs"] + info["states"]}
    if info["file"].endswith(".onnx"):
        import onnxruntime as ort

        session = ort.InferenceSession(str(folder / info["file"]), providers=["CPUExecutionProvider"])
        out = session.run([t["name"] for t in info["outputs"]], tensors)
    else:
        path = str(folder / info["file"])
        program = torch.jit.load(path) if name == "torchscript" else torch.export.load(path).module()
        out = [t.detach().numpy() for t in program(*map(torch.from_numpy, tensors.values()))]
    assert [list(o.shape) for o in out] == [t["shape"] for t in info["outputs"]]


def test_the_quantized_format_is_canonical_and_the_onnx_format_holds_no_quantisation(quantised: Path) -> None:
    def operators(name: str) -> set[str]:
        return {n.op_type for n in onnx.load(str(quantised / name / "student.onnx")).graph.node}

    assert "DequantizeLinear" in operators("quantized")
    assert not {"QuantizeLinear", "DequantizeLinear"} & operators("onnx")
    assert Manifest.read(quantised / "quantized").flavour == "canonical"
    assert Manifest.read(quantised / "onnx").flavour == "unquantised"


def test_freezing_a_quantised_student_changes_nothing(checkpoints: tuple[Path, Path]) -> None:
    model = checkpoint.load(checkpoints[1])
    frozen = formats.freeze(copy.deepcopy(model))
    inputs = tiny_student.batch(6)
    with torch.no_grad():
        before, after = (m(*inputs, model.init_state(1))[0] for m in (model, frozen))
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)


def test_a_format_that_differs_from_torch_is_not_put_in_place(
    checkpoints: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = builder.run_torch
    monkeypatch.setattr(builder, "run_torch", lambda *a: honest(*a) + np.float32(0.01))
    with pytest.raises(ValueError, match=r"'logits' differs from torch.*Not shipped"):
        build(checkpoints[0], tmp_path / "ts", "--format", "torchscript")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_program_is_named(quantised: Path, tmp_path: Path) -> None:
    for name in ("torchscript", "exported-program"):
        manifest = Manifest.read(quantised / name)
        folder = tmp_path / name
        folder.mkdir()
        (folder / manifest.model).write_bytes(b"not a program")
        dataclasses.replace(manifest, model_sha256=sha256_file(folder / manifest.model)).write(folder)
        with pytest.raises(ValueError, match=f"{manifest.model}: torch refuses it"):
            engines.load(folder)


@pytest.mark.parametrize(("name", "precision"), [("onnx", "int8"), ("quantized", "float32")])
def test_a_format_of_one_precision_refuses_the_other(name: str, precision: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"--format {name} is always"):
        dataclasses.replace(build_engine.Config(checkpoint=tmp_path, out=tmp_path), format=name, precision=precision)


def test_all_formats_do_not_go_into_an_engine(checkpoints: tuple[Path, Path], quantised: Path) -> None:
    with pytest.raises(ValueError, match="is an engine; give --format all a folder of its own"):
        build(checkpoints[0], quantised / "engine", "--format", "all")


def test_quantising_after_training_reports_the_distance_to_the_float_student(
    plain: Path, quantised: Path, checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = build(checkpoints[0], tmp_path / "int8", "--precision", "int8")
    assert f"against float    {STEPS} steps: mean" in capsys.readouterr().out
    for folder in (engine, plain / "quantized"):
        assert 0 < Manifest.read(folder).parity_float["mean"] < 0.05
    assert Manifest.read(plain / "engine").parity_float == {}
    assert Manifest.read(quantised / "engine").parity_float == {}


def test_a_dataset_calibrates_in_place_of_the_drawn_speaker(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    code = [
        sys.executable,
        "-m",
        "dyad.synthetic",
        "--out",
        str(tmp_path / "data"),
        "--sessions",
        "4",
        "--seconds",
        "4",
    ]
    subprocess.run(code, check=True, capture_output=True)
    samples = post_training.from_dataset(tmp_path / "data", tiny_student.SPEC, sessions=2, frames=10)
    assert [s[0].shape for s in samples] == [(10, 32, 32, 3)] * 2
    assert samples[0][1].shape == (10, tiny_student.SPEC.audio_window_samples)
    engine = build(checkpoints[0], tmp_path / "engine", "--calibration", str(tmp_path / "data"))
    manifest = Manifest.read(engine)
    assert manifest.precision == "int8"
    assert manifest.parity_float["mean"] < 0.05


def test_a_calibration_that_has_nothing_to_do_is_refused(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="carries its scales already"):
        build(checkpoints[1], tmp_path / "e", "--calibration", str(tmp_path))
    with pytest.raises(ValueError, match="stays float"):
        build(checkpoints[0], tmp_path / "e", "--calibration", str(tmp_path), "--precision", "float32")
    with pytest.raises(ValueError, match=r"no dataset there; make one with python -m dyad\.prepare"):
        build(checkpoints[0], tmp_path / "e", "--calibration", str(tmp_path))
