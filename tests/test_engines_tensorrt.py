"""TensorRT without a GPU: plans are kept, keyed and built again; TensorRT-RTX takes the canonical INT8 network."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_engine
import tiny_student

from deploy import build_engine, engines, tensorrt_plan
from deploy.engines import tensorrt as tensorrt_engine
from deploy.manifest import Manifest
from dyad.provenance import sha256_file
from student.spec import StudentSpec

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
rtx: Any = tensorrt_plan.library("tensorrt_rtx")
needs_rtx = pytest.mark.skipif(rtx is None, reason="TensorRT-RTX is not installed")
no_gpu = pytest.mark.skipif(tensorrt_plan.has_driver(), reason="there is a GPU here")


class FakeLogger:
    """Swallows everything."""

    ERROR = WARNING = 0

    def __init__(self, level: int) -> None: ...


class FakeTensorRt:
    """A library of some version on some GPU: it builds plans that carry both, and loads only its own."""

    __name__ = "tensorrt"
    Logger = FakeLogger
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)

    def __init__(self, version: str = "11.4", gpu: str = "H200") -> None:
        self.__version__, self.gpu, self.builds, self.timings = version, gpu, 0, [b""]

    @property
    def stamp(self) -> bytes:
        return f"{self.gpu} {self.__version__}".encode()

    def Builder(self, logger: Any) -> Any:  # noqa: N802 - TensorRT's own names, here and below
        return SimpleNamespace(
            create_network=lambda _flags: None,
            create_builder_config=self._options,
            build_serialized_network=self._build,
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(parse_from_file=lambda _path: True, num_errors=0)

    def _options(self) -> Any:
        def create(content: bytes) -> Any:
            self.timings.append(content)
            return SimpleNamespace(serialize=lambda: self.stamp, content=content)

        held: list[Any] = []

        def take(cache: Any, ignore_mismatch: bool) -> bool:
            held.append(cache)
            return cache.content in (b"", self.stamp)

        return SimpleNamespace(create_timing_cache=create, set_timing_cache=take, get_timing_cache=lambda: held[-1])

    def _build(self, network: Any, options: Any) -> bytes:
        self.builds += 1
        return self.stamp

    def deserialize_cuda_engine(self, plan: bytes) -> str | None:
        return plan.decode() if plan == self.stamp else None


def fake_cuda(gpu: str = "H200", driver: int = 13000) -> Any:
    device = SimpleNamespace(name=gpu.encode(), major=9, minor=0)
    return SimpleNamespace(
        cudaGetDeviceProperties=lambda _number: (0, device), cudaDriverGetVersion=lambda: (0, driver)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_engine.write(tmp_path, StudentSpec(crop_px=32))
    dataclasses.replace(Manifest.read(tmp_path), runtime="tensorrt").write(tmp_path)
    return tmp_path


def open_on(folder: Path, trt: FakeTensorRt, cuda: Any | None = None) -> Any:
    manifest = Manifest.read(folder)
    key = tensorrt_plan.machine_key(trt, cuda or fake_cuda(trt.gpu), manifest)
    return tensorrt_plan.open_plan(trt, trt, folder, manifest, key)


def plans(folder: Path) -> list[Path]:
    return sorted(folder.glob("student.*.plan"))


def test_a_plan_is_built_once_and_then_loaded(folder: Path) -> None:
    trt = FakeTensorRt()
    assert open_on(folder, trt) == open_on(folder, trt) == "H200 11.4"
    assert trt.builds == 1
    assert len(plans(folder)) == 1


@pytest.mark.parametrize(
    "other",
    [(FakeTensorRt("10.9"), None), (FakeTensorRt(gpu="L4"), None), (FakeTensorRt(), fake_cuda(driver=12090))],
    ids=["version", "gpu", "driver"],
)
def test_another_version_gpu_or_driver_builds_a_plan_of_its_own(folder: Path, other: tuple[FakeTensorRt, Any]) -> None:
    open_on(folder, FakeTensorRt())
    trt, cuda = other
    assert open_on(folder, trt, cuda) == f"{trt.gpu} {trt.__version__}"
    assert trt.builds == 1
    assert len(plans(folder)) == 2


def test_a_plan_that_no_longer_loads_is_built_again(folder: Path) -> None:
    trt = FakeTensorRt()
    open_on(folder, trt)
    (plan,) = plans(folder)
    plan.write_bytes(b"half a pl")
    assert open_on(folder, trt) == "H200 11.4"
    assert trt.builds == 2
    assert plan.read_bytes() == trt.stamp


def test_another_graph_has_another_key(folder: Path) -> None:
    trt, cuda = FakeTensorRt(), fake_cuda()
    manifest = Manifest.read(folder)
    other = dataclasses.replace(manifest, model_sha256="0" * 64)
    assert tensorrt_plan.machine_key(trt, cuda, manifest) != tensorrt_plan.machine_key(trt, cuda, other)


def test_measured_timings_are_used_again_where_they_fit_and_dropped_where_not(folder: Path) -> None:
    trt = FakeTensorRt()
    open_on(folder, trt)
    plans(folder)[0].unlink()
    open_on(folder, trt)
    assert trt.timings[-1] == trt.stamp
    moved = FakeTensorRt(gpu="L4")
    open_on(folder, moved)
    assert moved.timings[1:] == [b"H200 11.4", b""]
    assert (folder / tensorrt_plan.TIMING).read_bytes() == moved.stamp


@pytest.mark.parametrize(("library", "damaged", "builds"), [("11.4", False, 0), ("11.3", False, 1), ("11.4", True, 1)])
def test_a_plan_built_ahead_is_used_when_it_is_whole_and_of_this_version(
    folder: Path, library: str, damaged: bool, builds: int
) -> None:
    trt = FakeTensorRt()
    (folder / tensorrt_plan.AHEAD).write_bytes(trt.stamp)
    about = {"plan_sha256": sha256_file(folder / tensorrt_plan.AHEAD), "library": f"tensorrt {library}"}
    dataclasses.replace(Manifest.read(folder), device=about | {"plan": tensorrt_plan.AHEAD}).write(folder)
    if damaged:
        (folder / tensorrt_plan.AHEAD).write_bytes(b"half a pl")
    assert open_on(folder, trt) == "H200 11.4"
    assert trt.builds == builds


def test_a_folder_that_cannot_be_written_to_still_opens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Any:
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr(tensorrt_plan, "atomic_path", refuse)
    assert open_on(folder, FakeTensorRt()) == "H200 11.4"
    assert plans(folder) == []


@no_gpu
def test_without_the_library_or_a_gpu_each_target_names_the_way_out(folder: Path) -> None:
    with pytest.raises(ValueError, match="--extra tensorrt; use --target tensorrt-rtx"):
        engines.choose("tensorrt")
    assert engines.choose("auto") == "onnxruntime"
    if rtx is None:
        with pytest.raises(ValueError, match="uv sync --extra tensorrt-rtx; or use --target onnxruntime"):
            engines.choose("tensorrt-rtx")
    dataclasses.replace(Manifest.read(folder), runtime="tensorrt_rtx").write(folder)
    wanted = "not installed: uv sync --extra tensorrt-rtx" if rtx is None else "runs on an NVIDIA GPU, and none is here"
    with pytest.raises(ValueError, match=wanted):
        engines.load(folder)


@needs_rtx
@no_gpu
def test_tensorrt_rtx_builds_the_canonical_int8_network_without_a_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, source = tiny_student.write(tmp_path / "checkpoints")
    out = tmp_path / "engine"
    flags = ["--checkpoint", str(source), "--out", str(out), "--target", "tensorrt-rtx", "--steps", "30"]
    assert build_engine.main(flags) == 0
    manifest = Manifest.read(out)
    assert (manifest.runtime, manifest.flavour, manifest.precision) == ("tensorrt_rtx", "canonical", "int8")
    assert manifest.device["compute_capabilities"] == "80 86 89 120"
    assert manifest.device["library"] == f"tensorrt_rtx {rtx.__version__}"
    assert manifest.device["plan_sha256"] == sha256_file(out / tensorrt_plan.AHEAD)
    assert "the plan itself has not run" in manifest.parity_on
    assert "the plan itself has not run" in capsys.readouterr().out


@needs_rtx
def test_a_gpu_that_tensorrt_rtx_does_not_know_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"compute capability 90: tensorrt_rtx .* builds for 75, 80"):
        tensorrt_plan.build_plan(rtx, folder / "student.onnx", capabilities=(90,))


@needs_rtx
def test_a_file_that_is_no_graph_is_refused_in_the_parsers_words(tmp_path: Path) -> None:
    (tmp_path / "student.onnx").write_bytes(b"no graph at all")
    with pytest.raises(ValueError, match=r"student\.onnx: tensorrt_rtx refuses it: "):
        tensorrt_plan.build_plan(rtx, tmp_path / "student.onnx", capabilities=(89,))


@needs_rtx
def test_every_name_that_the_engine_calls_exists_in_the_library() -> None:
    names = {
        rtx.Runtime: ("deserialize_cuda_engine",),
        rtx.ICudaEngine: ("create_execution_context", "create_runtime_config"),
        rtx.IExecutionContext: ("set_tensor_address", "execute_async_v3"),
        rtx.IRuntimeConfig: ("cuda_graph_strategy",),
        rtx.CudaGraphStrategy: ("WHOLE_GRAPH_CAPTURE",),
    }
    assert [n for kind, wanted in names.items() for n in wanted if not hasattr(kind, n)] == []


def test_every_cuda_call_of_the_engine_exists_in_the_bindings() -> None:
    cuda = pytest.importorskip("cuda.bindings.runtime")
    source = Path(tensorrt_engine.__file__).read_text(encoding="utf8") + Path(tensorrt_plan.__file__).read_text("utf8")
    called = set(re.findall(r"cuda\.(cuda\w+)", source))
    assert len(called) > 10
    assert sorted(name for name in called if not hasattr(cuda, name)) == []
    assert hasattr(cuda.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
