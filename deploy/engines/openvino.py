"""OpenVINO on a CPU: one thread, tuned for the delay of a single frame.

Takes the canonical signed INT8 graph and runs all its convolutions in INT8. The unsigned flavour made for ONNX Runtime
is no better here: it ran slower, two convolutions in float, and differed from torch by .05 in mean probability. Float
parts are held to float32: on processors with bfloat16 units OpenVINO would use those, and no longer say what torch
says.

A float graph gets two threads from OpenVINO 2026 on: with one, 2026.0 to 2026.4 crash while they compile it.
"""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.engines import Tensors
from deploy.manifest import Manifest

HINT = "uv sync --extra openvino"
OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_NUM_THREADS": "1",
    "NUM_STREAMS": "1",
    "INFERENCE_PRECISION_HINT": "f32",
}


def library() -> Any:
    """OpenVINO's Python module, or None where it is not installed."""
    try:
        return importlib.import_module("openvino")
    except (ImportError, OSError):
        return None


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _options(ov: Any, manifest: Manifest, folder: Path) -> dict[str, str]:
    """Settings under which this version compiles this graph; raises ValueError where it would crash."""
    if manifest.precision == "int8" or int(ov.__version__.split(".")[0]) < 2026:
        return OPTIONS
    if _cores() < 2:
        raise ValueError(
            f"{folder}: OpenVINO {ov.__version__.split('-')[0]} crashes on a float graph with one core; build it with "
            "--target onnxruntime, or in INT8"
        )
    return OPTIONS | {"INFERENCE_NUM_THREADS": "2"}


class OpenVinoEngine:
    """One compiled step graph. Not shared between threads."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        ov = library()
        if ov is None:
            raise ValueError(f"{folder}: is an OpenVINO engine, but OpenVINO is not installed: {HINT}")
        path, options = folder / manifest.model, _options(ov, manifest, folder)
        try:
            compiled: Any = ov.Core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            raise ValueError(f"{path}: OpenVINO refuses it ({error}); build it again") from None
        self._request: Any = compiled.create_infer_request()
        self.manifest = manifest
        self.name = f"openvino {ov.__version__.split('-')[0]} cpu {manifest.precision}"

    def init_state(self) -> Tensors:
        """Zeros: nothing remembered."""
        return {name: np.zeros((1, *shape), np.float32) for name, shape in self.manifest.states.items()}

    def step(self, inputs: Tensors, state: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        """One frame; shapes as in `deploy.engines.Engine.step`."""
        feed = {name: values[None] for name, values in inputs.items()}
        self._request.infer(feed | state, share_inputs=True)
        # The request writes its outputs into the same memory at every step: hand out copies.
        new = {name: self._request.get_tensor(f"{name}_next").data.copy() for name in self.manifest.states}
        return self._request.get_tensor("logits").data.copy(), new


def open_engine(folder: Path, manifest: Manifest) -> OpenVinoEngine:
    """Entry point of `deploy.engines.load`."""
    return OpenVinoEngine(folder, manifest)
