"""TensorRT on an NVIDIA GPU: the canonical signed graph, states kept in device memory.

Two sets of state buffers take turns: what one step writes, the next one reads; only a frame, 800 samples and the plan
cross the bus. Each turn has an execution context with fixed addresses, so that it can be captured once as a CUDA graph
and launched with one call; where the run-time does not allow that, the step is enqueued as usual and the engine's name
says so. One engine follows one stream: `init_state` clears the states, and the dict that it returns is empty.

Not yet run on a GPU: written against the documented interface. The building half ran: see `deploy/tensorrt_plan.py`.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.engines import Tensors
from deploy.manifest import Manifest
from deploy.tensorrt_plan import has_driver, is_usable, library, machine_key, open_plan

__all__ = ["TensorRtEngine", "is_usable", "library", "open_engine"]


def _done(answer: tuple[Any, ...]) -> Any:
    """Result of a CUDA call; raises RuntimeError when it failed."""
    fault, *values = answer
    if int(fault) != 0:
        raise RuntimeError(f"CUDA failed: {fault}")
    return values[0] if values else None


class TensorRtEngine:
    """One plan, one stream, two sets of states that take turns."""

    def __init__(self, folder: Path, manifest: Manifest, module: str = "tensorrt") -> None:
        hint = f"uv sync --extra {module.replace('_', '-')}"
        trt = library(module)
        if trt is None:
            raise ValueError(f"{folder}: is a TensorRT engine, but {module} is not installed: {hint}")
        if not has_driver():
            raise ValueError(f"{folder}: runs on an NVIDIA GPU, and none is here; build with --target onnxruntime")
        try:
            cuda: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError:
            raise ValueError(f"{folder}: TensorRT needs CUDA's Python bindings: {hint}") from None
        self._cuda, self.manifest = cuda, manifest
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = open_plan(trt, self._runtime, folder, manifest, machine_key(trt, cuda, manifest))
        self._stream = _done(cuda.cudaStreamCreate())
        spec = manifest.spec
        self._shape = (len(spec.horizons), len(spec.au_names), 2)
        self._inputs = {
            "frame_u8": self._zeros(spec.crop_px * spec.crop_px * 3),
            "audio": self._zeros(spec.audio_window_samples * 4),
            "present": self._zeros(2 * 4),
        }
        self._logits = self._zeros(int(np.prod(self._shape)) * 4)
        self._bytes = {name: int(np.prod(shape)) * 4 for name, shape in manifest.states.items()}
        self._states = [{name: self._zeros(size) for name, size in self._bytes.items()} for _ in range(2)]
        self._turn = 0
        self._contexts = [self._context(trt, turn) for turn in range(2)]
        by_itself = hasattr(trt, "CudaGraphStrategy")
        self._graphs = [None if by_itself else self._capture(context) for context in self._contexts]
        captured = "the library's own" if by_itself else f"{sum(g is not None for g in self._graphs)} of 2 turns"
        self.name = f"{module} {trt.__version__} {manifest.precision}, CUDA graphs: {captured}"

    def _zeros(self, size: int) -> int:
        """Address of `size` bytes of device memory, zeroed."""
        address = _done(self._cuda.cudaMalloc(size))
        _done(self._cuda.cudaMemset(address, 0, size))
        return address

    def _context(self, trt: Any, turn: int) -> Any:
        """An execution context that reads the states of one turn and writes those of the other."""
        if hasattr(trt, "CudaGraphStrategy"):  # TensorRT-RTX captures by itself
            options = self._engine.create_runtime_config()
            options.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(options)
        else:
            context = self._engine.create_execution_context()
        addresses = self._inputs | {"logits": self._logits} | self._states[turn]
        addresses |= {f"{name}_next": address for name, address in self._states[1 - turn].items()}
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise RuntimeError(f"TensorRT does not take a buffer for {name!r}; build the engine again")
        return context

    def _capture(self, context: Any) -> Any | None:
        """One turn as a CUDA graph, or None where it cannot be captured."""
        cuda, stream = self._cuda, self._stream
        if not context.execute_async_v3(stream):  # warm up: what is allocated late must not be captured
            raise RuntimeError("TensorRT could not start a step; see its log above")
        _done(cuda.cudaStreamSynchronize(stream))
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        if int(cuda.cudaStreamBeginCapture(stream, mode)[0]) != 0:
            return None
        started = context.execute_async_v3(stream)
        fault, graph = cuda.cudaStreamEndCapture(stream)
        if int(fault) != 0 or not started:
            cuda.cudaGetLastError()  # forget it: the step runs without a graph
            return None
        fault, ready = cuda.cudaGraphInstantiate(graph, 0)
        return ready if int(fault) == 0 else None

    def init_state(self) -> Tensors:
        """Zero the states on the device; the returned dict is empty, since states never leave it."""
        for memory in self._states:
            for name, address in memory.items():
                _done(self._cuda.cudaMemset(address, 0, self._bytes[name]))
        return {}

    def step(self, inputs: Tensors, state: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        """One frame; shapes as in `deploy.engines.Engine.step`."""
        cuda, kinds, stream = self._cuda, self._cuda.cudaMemcpyKind, self._stream
        for name, address in self._inputs.items():
            block = np.ascontiguousarray(inputs[name], np.uint8 if name == "frame_u8" else np.float32)
            to_device = kinds.cudaMemcpyHostToDevice
            _done(cuda.cudaMemcpyAsync(address, block.ctypes.data, block.nbytes, to_device, stream))
        graph = self._graphs[self._turn]
        if graph is not None:
            _done(cuda.cudaGraphLaunch(graph, stream))
        elif not self._contexts[self._turn].execute_async_v3(stream):
            raise RuntimeError("TensorRT could not start a step; see its log above")
        logits = np.full(self._shape, np.nan, np.float32)
        to_host = kinds.cudaMemcpyDeviceToHost
        _done(cuda.cudaMemcpyAsync(logits.ctypes.data, self._logits, logits.nbytes, to_host, stream))
        _done(cuda.cudaStreamSynchronize(stream))
        self._turn = 1 - self._turn
        return logits, state


def open_engine(folder: Path, manifest: Manifest) -> TensorRtEngine:
    """Entry point of `deploy.engines.load`."""
    return TensorRtEngine(folder, manifest)
