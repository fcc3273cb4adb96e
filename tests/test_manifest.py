"""The engine folder's contract: it round-trips, and what does not fit is refused by file and name."""

import json
from pathlib import Path

import pytest

from deploy import engines
from deploy.manifest import FILE, Manifest
from dyad.provenance import sha256_file
from student.spec import StudentSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "student.onnx").write_bytes(b"no graph at all")
    Manifest(
        runtime="onnxruntime", model="student.onnx", model_sha256=sha256_file(tmp_path / "student.onnx"),
        precision="int8", flavour="cpu", spec=StudentSpec(), states={"filled": (63,), "key0": (63, 128)},
        stays_float=("layer norm: sums",), parity={"mean": 0.001}, device={}, run={"command": "test"},
    ).write(tmp_path)  # fmt: skip
    return tmp_path


def edit(folder: Path, **changes: object) -> None:
    content = json.loads((folder / FILE).read_text(encoding="utf8")) | changes
    (folder / FILE).write_text(json.dumps(content), encoding="utf8")


def test_a_manifest_reads_back_what_was_written(folder: Path) -> None:
    manifest = Manifest.read(folder)
    assert manifest.spec == StudentSpec()
    assert manifest.states == {"filled": (63,), "key0": (63, 128)}
    assert manifest.stays_float == ("layer norm: sums",)
    assert manifest.flavour == "cpu"


def test_a_changed_model_file_is_refused_by_its_hash(folder: Path) -> None:
    (folder / "student.onnx").write_bytes(b"another graph")
    with pytest.raises(ValueError, match=r"student\.onnx: damaged, its hash"):
        Manifest.read(folder)


def test_a_manifest_of_another_version_names_the_field_that_differs(folder: Path) -> None:
    edit(folder, colour="blue")
    with pytest.raises(ValueError, match=r"another version \(differing: colour\)"):
        Manifest.read(folder)


def test_a_manifest_with_an_unknown_spec_key_is_refused_by_that_key(folder: Path) -> None:
    edit(folder, spec=StudentSpec().to_dict() | {"crop_pxx": 64})
    with pytest.raises(ValueError, match="crop_pxx"):
        Manifest.read(folder)


def test_an_unknown_run_time_lists_those_that_are_there(folder: Path) -> None:
    edit(folder, runtime="abacus")
    with pytest.raises(ValueError, match=r"'abacus'; available: onnxruntime, openvino, tensorrt"):
        engines.load(folder)


def test_a_file_that_is_no_graph_is_refused_by_its_name(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"student\.onnx: ONNX Runtime refuses it"):
        engines.load(folder)


def test_a_tensorrt_folder_without_tensorrt_says_what_to_install(folder: Path) -> None:
    from deploy.engines.tensorrt import library

    if library() is not None:
        pytest.skip("TensorRT is installed here")
    edit(folder, runtime="tensorrt")
    with pytest.raises(ValueError, match="not installed: uv sync --extra tensorrt"):
        engines.load(folder)
