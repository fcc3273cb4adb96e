"""ONNX Runtime on a CPU: one thread, no spinning, so that capture and motors keep the other core."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.engines import Tensors
from deploy.manifest import Manifest


class OnnxRuntimeEngine:
    """One ONNX step graph. Not shared between threads."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        import onnxruntime as ort

        failures: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(
                str(folder / manifest.model), options, providers=["CPUExecutionProvider"]
            )
        except (RuntimeError, failures.Fail, failures.InvalidProtobuf, failures.InvalidGraph) as error:
            raise ValueError(f"{folder / manifest.model}: ONNX Runtime refuses it ({error}); build it again") from None
        self.manifest = manifest
        self.name = f"onnxruntime {ort.__version__} cpu {manifest.precision}"
        self._states = list(manifest.states)
        self._outputs = ["logits", *(f"{n}_next" for n in self._states)]

    def init_state(self) -> Tensors:
        """Zeros: nothing remembered."""
        return {name: np.zeros((1, *shape), np.float32) for name, shape in self.manifest.states.items()}

    def step(self, inputs: Tensors, state: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        """One frame; shapes as in `deploy.engines.Engine.step`."""
        feed = {name: values[None] for name, values in inputs.items()}
        logits, *new = self._session.run(self._outputs, feed | state)
        return logits, dict(zip(self._states, new, strict=True))


def open_engine(folder: Path, manifest: Manifest) -> OnnxRuntimeEngine:
    """Entry point of `deploy.engines.load`."""
    return OnnxRuntimeEngine(folder, manifest)
