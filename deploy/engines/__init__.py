"""Run-times of the student, one file each, found by name.

An engine takes one frame and the state, and gives the plan and the next state. `load(folder)` reads the manifest and
opens the run-time that it names; nothing here imports torch.
"""

import importlib
import pkgutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deploy.manifest import Manifest

Tensors = dict[str, NDArray[Any]]


class Engine(Protocol):
    """One loaded student."""

    manifest: Manifest
    name: str
    """Which run-time, for reports."""

    def init_state(self) -> Tensors:
        """The state before the first frame."""
        ...

    def step(self, inputs: Tensors, state: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        """frame_u8 [h, w, 3], audio [800], present [2] and the state → log-odds [H, A, 2] and the next state."""
        ...


def available() -> list[str]:
    """Names of the run-times in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def load(folder: Path | str) -> Engine:
    """Open an engine folder; raises ValueError naming what is missing, damaged or made for something else."""
    manifest = Manifest.read(folder)
    if manifest.runtime not in available():
        raise ValueError(f"{folder}: wants the run-time {manifest.runtime!r}; available: {', '.join(available())}")
    return importlib.import_module(f"deploy.engines.{manifest.runtime}").open_engine(Path(folder), manifest)


def choose(target: str) -> str:
    """Run-time for a target of `deploy.build_engine`; raises ValueError with the way out where it cannot be built."""
    from deploy import tensorrt_plan
    from deploy.engines import openvino

    if target == "auto":
        return next((r for r in ("tensorrt", "tensorrt_rtx") if tensorrt_plan.is_usable(r)), "onnxruntime")
    if target == "tensorrt" and not tensorrt_plan.is_usable():
        raise ValueError(
            "TensorRT needs an NVIDIA GPU and: uv sync --extra tensorrt; use --target tensorrt-rtx, which builds "
            "without a GPU, or --target onnxruntime"
        )
    if target == "tensorrt-rtx" and tensorrt_plan.library("tensorrt_rtx") is None:
        raise ValueError("TensorRT-RTX is not installed: uv sync --extra tensorrt-rtx; or use --target onnxruntime")
    if target == "openvino" and openvino.library() is None:
        raise ValueError(f"OpenVINO is not installed: {openvino.HINT}; or use --target onnxruntime")
    return target.replace("-", "_")
