"""The steps of `deploy.build_engine`: quantise if asked, export, flavour, compare, write."""

import dataclasses
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deploy import engines, export, onnx_flavours, parity
from deploy.build_engine import STAYS_FLOAT
from deploy.engines import Tensors
from deploy.engines.tensorrt import is_usable
from deploy.manifest import FILE, Manifest
from dyad.provenance import atomic_path, run_card, sha256_file
from student import checkpoint
from student.calibration import prepare
from student.model import Student


@torch.no_grad()
def run_torch(model: Student, stream: list[Tensors]) -> NDArray[np.float32]:
    """Probabilities [steps, H, A, 2] of the model over a stream, step by step."""
    state, out = model.init_state(1), []
    for inputs in stream:
        tensors = [torch.from_numpy(inputs[k])[None, None] for k in ("frame_u8", "audio", "present")]
        logits, state = model(*tensors, state)
        out.append(torch.sigmoid(logits[0, 0]).numpy())
    return np.stack(out)


def _calibrate(model: Student, stream: list[Tensors]) -> None:
    """Post-training quantisation on a recorded stream: the fallback for a float checkpoint."""
    names = ("frame_u8", "audio", "present")
    whole = tuple(torch.from_numpy(np.stack([s[n] for s in stream]))[None] for n in names)
    prepare(model, [(whole[0], whole[1], whole[2])])


def build(
    source: Path, out: Path, *, target: str, precision: str, steps: int, config: dict[str, Any]
) -> dict[str, Any]:
    """Build an engine folder; returns what to tell the user. Raises ValueError when it differs from torch."""
    if out.is_dir() and any(out.iterdir()) and not (out / FILE).is_file():
        raise ValueError(f"{out}: is neither empty nor an engine, and would be replaced as a whole; give another --out")
    model = checkpoint.load(source)
    stream = parity.recorded_stream(model.spec, steps)
    if precision == "auto":
        precision = "int8" if export.is_quantised(model) else "float32"
    if precision == "float32" and export.is_quantised(model):
        raise ValueError(f"{source}: is quantisation-aware; build its float parent beside it, or use --precision int8")
    if precision == "int8" and not export.is_quantised(model):
        _calibrate(model, stream)
    usable = is_usable()
    if target == "tensorrt" and not usable:
        raise ValueError("TensorRT needs an NVIDIA GPU and: uv sync --extra tensorrt; use --target onnxruntime")
    runtime = "tensorrt" if target == "tensorrt" or (target == "auto" and usable) else "onnxruntime"
    report: dict[str, Any] = {}
    if runtime == "onnxruntime" and target == "auto":
        report["note"] = "no GPU with TensorRT here: built for ONNX Runtime on the CPU"
    with atomic_path(out) as part:
        part.mkdir(parents=True)
        report |= _write(
            part, model, stream, runtime, precision, {"checkpoint": checkpoint.content_hash(source)}, config
        )
    return report | {"engine": str(out)}


def _write(
    part: Path,
    model: Student,
    stream: list[Tensors],
    runtime: str,
    precision: str,
    inputs: dict[str, str],
    config: dict[str, Any],
) -> dict[str, Any]:
    graph = part / "student.onnx"
    export.export(model, graph)
    flavour = "canonical"
    if precision == "int8":
        if runtime == "onnxruntime":
            onnx_flavours.to_cpu(graph, graph)
            flavour = "cpu"
        onnx_flavours.fuse_weights(graph)
    manifest = Manifest(
        runtime=runtime,
        model=graph.name,
        model_sha256=sha256_file(graph),
        precision=precision,
        flavour=flavour,
        spec=model.spec,
        states=model.state_shapes(),
        stays_float=STAYS_FLOAT if precision == "int8" else ("everything",),
        parity={},
        device={} if runtime == "onnxruntime" else {"machine": platform.node()},
        run=run_card(command="deploy.build_engine", config=config, inputs=inputs),
    )
    manifest.write(part)
    found = parity.compare(parity.run_engine(engines.load(part), stream), run_torch(model, stream))
    parity.refuse_if_apart(found, precision)
    dataclasses.replace(manifest, parity=found.to_dict()).write(part)
    kernels = onnx_flavours.count_kernels(graph)
    return {
        "runtime": f"{runtime}, {precision}",
        "parity": f"{found.steps} steps: mean {found.mean:.2g}, 99.9 % {found.p999:.2g}, largest {found.largest:.2g}",
        "products": f"{kernels['int8']} in INT8, {kernels['float']} in float, {kernels['matmul']} float by design",
        "size": f"{graph.stat().st_size / 1e6:.2f} MB",
    }
