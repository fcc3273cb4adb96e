"""OpenVINO runs the canonical INT8 graph and says what torch says; without it, the way to it is named."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_engine
import tiny_student

from deploy import build_engine, engines, parity
from deploy.engines import openvino
from deploy.manifest import Manifest
from dyad.provenance import sha256_file
from student.spec import StudentSpec

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
needs_openvino = pytest.mark.skipif(openvino.library() is None, reason="OpenVINO is not installed")


def as_openvino(folder: Path) -> Path:
    """A folder of a few operators, handed to OpenVINO instead of ONNX Runtime."""
    tiny_engine.write(folder, StudentSpec(crop_px=32))
    dataclasses.replace(Manifest.read(folder), runtime="openvino").write(folder)
    return folder


@pytest.mark.skipif(openvino.library() is not None, reason="OpenVINO is installed")
def test_without_openvino_folder_and_target_say_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not installed: uv sync --extra openvino"):
        engines.load(as_openvino(tmp_path))
    with pytest.raises(ValueError, match="uv sync --extra openvino; or use --target onnxruntime"):
        engines.choose("openvino")


@needs_openvino
@pytest.mark.parametrize("precision", ["float", "quantised"])
def test_the_engine_equals_torch_and_onnxruntime(precision: str, tmp_path: Path) -> None:
    source = dict(zip(("float", "quantised"), tiny_student.write(tmp_path / "checkpoints"), strict=True))[precision]
    for target in ("openvino", "onnxruntime"):  # building compares with torch, and refuses what differs
        flags = ["--checkpoint", str(source), "--out", str(tmp_path / target), "--target", target, "--steps", "60"]
        assert build_engine.main(flags) == 0
    assert Manifest.read(tmp_path / "openvino").flavour == "canonical"
    stream = parity.recorded_stream(tiny_student.SPEC, 60)
    ours, theirs = (parity.run_engine(engines.load(tmp_path / t), stream) for t in ("openvino", "onnxruntime"))
    gap = np.abs(ours - theirs)
    assert gap.max() < 1e-5 if precision == "float" else gap.mean() < parity.MEAN_INT8


@needs_openvino
def test_a_float_graph_on_one_core_is_refused_and_does_not_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if openvino.library().__version__ < "2026":
        pytest.skip("this version compiles it")
    monkeypatch.setattr(openvino, "_cores", lambda: 1)
    with pytest.raises(ValueError, match="crashes on a float graph with one core"):
        engines.load(as_openvino(tmp_path))


@needs_openvino
def test_a_state_handed_out_stays_as_it_was_when_the_engine_goes_on(tmp_path: Path) -> None:
    engine = engines.load(as_openvino(tmp_path))
    inputs = parity.recorded_stream(engine.manifest.spec, 1)[0]
    logits, first = engine.step(inputs, engine.init_state())
    kept = logits.copy()
    _, second = engine.step(inputs | {"frame_u8": np.full_like(inputs["frame_u8"], 255)}, first)
    assert (first["steps"].item(), second["steps"].item()) == (1, 2)
    np.testing.assert_array_equal(logits, kept)


@needs_openvino
def test_a_file_that_is_no_graph_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = as_openvino(tmp_path)
    (folder / "student.onnx").write_bytes(b"no graph at all")
    dataclasses.replace(
        tiny_engine.manifest(StudentSpec(), sha256_file(folder / "student.onnx")), runtime="openvino"
    ).write(folder)
    with pytest.raises(ValueError, match=r"student\.onnx: OpenVINO refuses it"):
        engines.load(folder)
