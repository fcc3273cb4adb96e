"""Torch on a CPU: steps a TorchScript file or an exported program, so that formats can be run and compared.

Not for the robot, whose computer has no torch: it is here for those who take the student into a PyTorch project.
"""

import importlib
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.engines import Tensors
from deploy.manifest import Manifest

INPUTS = ("frame_u8", "audio", "present")


def _open(torch: Any, path: Path) -> Any:
    """A callable of the file: inputs and states in, logits and next states out."""
    try:
        if path.suffix == ".ts":
            with warnings.catch_warnings():  # torch announces the end of TorchScript; the format is still asked for
                warnings.simplefilter("ignore", DeprecationWarning)
                return torch.jit.load(str(path), map_location="cpu").eval()
        return torch.export.load(str(path)).module()
    except (RuntimeError, ValueError, zipfile.BadZipFile) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: torch refuses it ({first}); build it again") from None


class TorchEngine:
    """One step program. Not shared between threads."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        try:
            self._torch: Any = importlib.import_module("torch")
        except ImportError:
            raise ValueError(f"{folder}: needs torch, which is not installed: uv sync --extra train") from None
        self._program = _open(self._torch, folder / manifest.model)
        self.manifest = manifest
        self.name = f"torch {self._torch.__version__} cpu {manifest.precision}, {manifest.model}"

    def init_state(self) -> Tensors:
        """Zeros: nothing remembered."""
        return {name: np.zeros((1, *shape), np.float32) for name, shape in self.manifest.states.items()}

    def step(self, inputs: Tensors, state: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        """One frame; shapes as in `deploy.engines.Engine.step`."""
        torch = self._torch
        arrays = [inputs[name][None] for name in INPUTS] + [state[name] for name in self.manifest.states]
        with torch.no_grad():
            logits, *new = self._program(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))
        return logits.numpy(), {n: t.numpy() for n, t in zip(self.manifest.states, new, strict=True)}


def open_engine(folder: Path, manifest: Manifest) -> TorchEngine:
    """Entry point of `deploy.engines.load`."""
    return TorchEngine(folder, manifest)
