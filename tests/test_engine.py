"""From checkpoint to engine: the exported step equals torch, INT8 equals its fake quantisation, damage is named."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from deploy import build_engine, builder, engines, onnx_flavours, parity
from deploy.engines import Tensors
from deploy.manifest import Manifest
from student import calibration, checkpoint
from student.model import Student
from student.quantization import ActivationQuantizer, QuantConv2d, layout_of, weight_scale
from student.spec import StudentSpec

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
SPEC = StudentSpec(
    crop_px=32,
    backbone="mobilenetv4_conv_small_035",
    d_model=32,
    layers=2,
    heads=2,
    window_frames=8,
    ffn=64,
    mel_bins=32,
)
STEPS = 300


@pytest.fixture(scope="module")
def stream() -> list[Tensors]:
    return parity.recorded_stream(SPEC, STEPS)


def batch_of(stream: list[Tensors]) -> calibration.Inputs:
    parts = [torch.from_numpy(np.stack([s[k] for s in stream]))[None] for k in ("frame_u8", "audio", "present")]
    return parts[0], parts[1], parts[2]


@pytest.fixture(scope="module")
def model(stream: list[Tensors]) -> Student:
    torch.manual_seed(0)
    student = Student(SPEC).eval()
    student.vision.calibrate(batch_of(stream)[0][0, ::8])
    torch.nn.init.normal_(student.heads.out.weight, std=0.03)
    return student


@pytest.fixture(scope="module")
def float_checkpoint(model: Student, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float") / "checkpoint"
    checkpoint.save(folder, model, {})
    return folder


def build(source: Path, out: Path, *flags: str) -> Path:
    assert build_engine.main(["--checkpoint", str(source), "--out", str(out), "--steps", str(STEPS), *flags]) == 0
    return out


@pytest.fixture(scope="module")
def float_engine(float_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(float_checkpoint, tmp_path_factory.mktemp("engine") / "float", "--precision", "float32")


@pytest.fixture(scope="module")
def int8_engine(float_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(float_checkpoint, tmp_path_factory.mktemp("engine") / "int8", "--precision", "int8")


def test_the_float_engine_equals_torch_over_300_steps(
    float_engine: Path, model: Student, stream: list[Tensors]
) -> None:
    says = parity.run_engine(engines.load(float_engine), stream)
    np.testing.assert_allclose(says, builder.run_torch(model, stream), atol=1e-5)


def test_the_int8_engine_equals_its_fake_quantisation_within_tolerance(int8_engine: Path) -> None:
    found = Manifest.read(int8_engine).parity
    assert found["steps"] == STEPS
    assert found["mean"] <= parity.MEAN_INT8
    assert found["p999"] <= parity.HIGH_INT8


def test_the_int8_engine_runs_its_convolutions_in_int8_and_is_smaller(int8_engine: Path, float_engine: Path) -> None:
    kernels = onnx_flavours.count_kernels(int8_engine / "student.onnx")
    graph = onnx.load(str(int8_engine / "student.onnx")).graph
    spatial = [n for n in graph.node if n.op_type == "Conv" and len(_weight(graph, n).shape) == 4]
    assert kernels["int8"] > len(spatial)
    # what stays float: the heads and the convolutions over time
    assert kernels["float"] <= 2 + SPEC.layers + 1
    assert (int8_engine / "student.onnx").stat().st_size < (float_engine / "student.onnx").stat().st_size


def _weight(graph: onnx.GraphProto, node: onnx.NodeProto) -> np.ndarray:
    values = {i.name: i for i in graph.initializer}
    makers = {o: n for n in graph.node for o in n.output}
    name = node.input[1] if node.input[1] in values else makers[node.input[1]].input[0]
    return numpy_helper.to_array(values[name])


def test_the_cpu_flavour_with_signed_ranges_equals_the_canonical_graph(
    model: Student, stream: list[Tensors], tmp_path: Path
) -> None:
    from deploy import export

    quantised = Student(SPEC).eval()
    quantised.load_state_dict(model.state_dict())
    calibration.prepare(quantised, [batch_of(stream[:64])])
    export.export(quantised, tmp_path / "canonical.onnx")
    onnx_flavours.to_cpu(tmp_path / "canonical.onnx", tmp_path / "cpu.onnx", unsigned_relu=False, integer_bias=False)
    says = [_run(tmp_path / name, quantised, stream[:40]) for name in ("canonical.onnx", "cpu.onnx")]
    np.testing.assert_allclose(says[0], says[1], atol=1e-6)


def _run(path: Path, model: Student, stream: list[Tensors]) -> np.ndarray:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = list(model.state_shapes())
    state = {n: np.zeros((1, *s), np.float32) for n, s in model.state_shapes().items()}
    out = []
    for inputs in stream:
        feed = {k: v[None] for k, v in inputs.items()} | state
        logits, *new = session.run(["logits", *(f"{n}_next" for n in names)], feed)
        state = dict(zip(names, new, strict=True))
        out.append(1 / (1 + np.exp(-logits)))
    return np.stack(out)


def test_the_canonical_graph_is_what_tensorrt_wants(model: Student, stream: list[Tensors], tmp_path: Path) -> None:
    from deploy import export

    quantised = Student(SPEC).eval()
    quantised.load_state_dict(model.state_dict())
    calibration.prepare(quantised, [batch_of(stream[:32])])
    export.export(quantised, tmp_path / "c.onnx")
    onnx_flavours.fuse_weights(tmp_path / "c.onnx")
    model_proto = onnx.load(str(tmp_path / "c.onnx"))
    graph = onnx_flavours._Graph(model_proto)
    zeros = [graph.values[n.input[2]] for n in model_proto.graph.node if n.op_type == "DequantizeLinear"]
    assert zeros
    # TensorRT lets nothing but a cast touch a uint8 tensor
    assert {n.op_type for n in model_proto.graph.node if "frame_u8" in n.input} == {"Cast"}
    assert all(z.dtype == np.int8 and not z.any() for z in zeros)
    assert all(i.type.tensor_type.shape.dim[0].dim_value == 1 for i in model_proto.graph.input)


def test_an_engine_that_differs_from_torch_is_not_shipped(
    float_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = builder.run_torch
    monkeypatch.setattr(builder, "run_torch", lambda *a: honest(*a) + np.float32(0.01))
    with pytest.raises(ValueError, match=r"'logits' differs from torch over 20 steps.*Not shipped"):
        build_engine.main(["--checkpoint", str(float_checkpoint), "--out", str(tmp_path / "e"), "--steps", "20"])
    assert not (tmp_path / "e").exists()


def test_a_folder_that_holds_anything_but_an_engine_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf8")
    with pytest.raises(ValueError, match="neither empty nor an engine"):
        builder.build(build_engine.Config(checkpoint=tmp_path / "none", out=tmp_path, steps=1))
    assert (tmp_path / "thesis.txt").is_file()


def test_a_damaged_engine_file_is_named_before_it_runs(float_engine: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "engine"
    shutil.copytree(float_engine, copy)
    whole = (copy / "student.onnx").read_bytes()
    (copy / "student.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"student.onnx: damaged"):
        engines.load(copy)
    (copy / "student.onnx").unlink()
    with pytest.raises(ValueError, match=r"student.onnx: missing"):
        engines.load(copy)
    with pytest.raises(ValueError, match="no engine there"):
        engines.load(tmp_path / "nothing")


def test_a_gpu_target_without_a_gpu_is_refused_with_the_way_out(float_checkpoint: Path, tmp_path: Path) -> None:
    from deploy.engines.tensorrt import is_usable

    if is_usable():
        pytest.skip("there is a GPU with TensorRT here")
    with pytest.raises(ValueError, match="--extra tensorrt"):
        build_engine.main(["--checkpoint", str(float_checkpoint), "--out", str(tmp_path / "e"), "--target", "tensorrt"])


def test_the_run_time_loads_and_steps_without_torch(float_engine: Path) -> None:
    code = (
        "import sys, numpy as np\nfrom deploy import engines, parity\n"
        f"e = engines.load({str(float_engine)!r})\n"
        "parity.run_engine(e, parity.recorded_stream(e.manifest.spec, 3))\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_quantised_checkpoint_comes_back_as_it_was(model: Student, stream: list[Tensors], tmp_path: Path) -> None:
    quantised = Student(SPEC).eval()
    quantised.load_state_dict(model.state_dict())
    calibration.prepare(quantised, [batch_of(stream[:32])])
    checkpoint.save(tmp_path / "q", quantised, {})
    again = checkpoint.load(tmp_path / "q")
    assert layout_of(again) == layout_of(quantised)
    np.testing.assert_array_equal(builder.run_torch(again, stream[:5]), builder.run_torch(quantised, stream[:5]))


def test_equalising_channel_ranges_changes_nothing_in_float(model: Student, stream: list[Tensors]) -> None:
    student = Student(SPEC).eval()
    student.load_state_dict(model.state_dict())
    frames = batch_of(stream[:6])[0][0]
    with torch.no_grad():
        before = student.vision(frames)
        pairs = calibration.equalise(student.vision, frames[:1])
        after = student.vision(frames)
    assert pairs > 0
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-3)


def test_equalising_mends_a_channel_range_that_one_scale_cannot_cover(stream: list[Tensors]) -> None:
    torch.manual_seed(1)
    first, second = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 3)
    spread = torch.logspace(-1.5, 1.5, 8)
    with torch.no_grad():
        first.weight.mul_(spread[:, None, None, None])
        second.weight.div_(spread[None, :, None, None])
    calibration._equalise_pair(first, second)
    ranges = weight_scale(first.weight)
    assert ranges.max() / ranges.min() < 8


def test_weights_on_the_grid_survive_quantisation_and_gradients_pass() -> None:
    conv = torch.nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([-127.0, 64, 127, -3, 1, 127]).reshape(3, 2, 1, 1) * 0.01)
    conv.__class__ = QuantConv2d
    conv.register_buffer("fixed_scale", None)
    conv.input_quantizer, conv.output_quantizer = ActivationQuantizer(), torch.nn.Identity()
    conv.input_quantizer.scale.fill_(0.5)
    x = torch.tensor([1.0, -2.5]).reshape(1, 2, 1, 1).requires_grad_()
    y = conv(x)
    expected = torch.nn.functional.conv2d(x, conv.weight, conv.bias)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.abs().sum() > 0
