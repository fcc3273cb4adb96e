"""Beyond the calibrated range the CPU flavour clips where torch clips, without losing an INT8 kernel."""

from pathlib import Path

import numpy as np
import pytest
import tiny_student
import torch

from deploy import builder, export, onnx_flavours, onnx_saturation, parity
from deploy.engines.onnxruntime import OnnxRuntimeEngine
from deploy.manifest import Manifest
from student import checkpoint
from student.model import Student
from student.quantization import ActivationQuantizer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def narrowed(folder: Path) -> Student:
    """A student whose scales are half of what the stream needs: many activations lie beyond them."""
    _, quantised = tiny_student.write(folder)
    model = checkpoint.load(quantised)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ActivationQuantizer):
                module.scale.mul_(0.5)
    return model


def run(path: Path, model: Student, stream: list[parity.Tensors]) -> np.ndarray:
    manifest = Manifest(
        runtime="onnxruntime", model=path.name, model_sha256="", precision="int8", flavour="cpu", spec=model.spec,
        states=model.state_shapes(), stays_float=(), parity={}, device={}, run={},
    )  # fmt: skip
    return parity.run_engine(OnnxRuntimeEngine(path.parent, manifest), stream)


def test_activations_beyond_their_range_are_clipped_as_in_torch(tmp_path: Path) -> None:
    model = narrowed(tmp_path)
    stream = parity.recorded_stream(model.spec, 30)
    graph = tmp_path / "cpu.onnx"
    export.export(model, graph)
    onnx_flavours.to_cpu(graph, graph)
    says = builder.run_torch(model, stream)
    before, kernels = np.abs(run(graph, model, stream) - says).mean(), onnx_flavours.count_kernels(graph)
    assert onnx_saturation.saturate(graph) > 10
    after = np.abs(run(graph, model, stream) - says).mean()
    assert after < 0.2 * before
    assert onnx_flavours.count_kernels(graph)["int8"] == kernels["int8"]


def test_a_float_graph_is_left_as_it_is(tmp_path: Path) -> None:
    source, _ = tiny_student.write(tmp_path)
    export.export(checkpoint.load(source), tmp_path / "float.onnx")
    before = (tmp_path / "float.onnx").read_bytes()
    assert onnx_saturation.saturate(tmp_path / "float.onnx") == 0
    assert (tmp_path / "float.onnx").read_bytes() == before
