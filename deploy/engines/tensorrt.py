"""TensorRT (else TensorRT-RTX) on an NVIDIA GPU: the canonical signed graph, states kept in device memory.

The plan is bound to GPU, driver and library version; it is built from the ONNX graph beside it and cached under a name
that carries all three, so that another machine builds its own instead of crashing. Two sets of state buffers take
turns: what one step writes, the next one reads; only a frame, 800 samples and the plan cross the bus.

Not yet run on a GPU: written against the documented API. The building half ran: TensorRT-RTX 1.7.1 parses the canonical
INT8 step and compiles it ahead of time (measured: 3 s, without a GPU).
"""

import ctypes
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.engines import Tensors
from deploy.manifest import Manifest
from dyad.provenance import atomic_path, sha256_bytes

HINT = "uv sync --extra tensorrt"


def library() -> Any:
    """TensorRT's Python module, or None where neither flavour is installed."""
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):  # missing shared libraries surface as either
            continue
    return None


def is_usable() -> bool:
    """Whether a driver and the library are here."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return library() is not None


def build_plan(trt: Any, graph: Path) -> bytes:
    """Parse the canonical graph and build a plan; raises ValueError with the parser's own words."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    flags = trt.NetworkDefinitionCreationFlag
    typed = 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        words = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ValueError(f"{graph}: TensorRT refuses it: {words}")
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        raise ValueError(f"{graph}: TensorRT could not build a plan on this machine; see its log above")
    return bytes(plan)


def _machine_key(trt: Any, cuda: Any, manifest: Manifest) -> str:
    """What a plan is bound to: GPU, driver, library version and graph, as a short hash."""
    device, driver = cuda.cudaGetDeviceProperties(0)[1], cuda.cudaDriverGetVersion()[1]
    parts = (device.name, device.major, device.minor, driver, trt.__name__, trt.__version__, manifest.model_sha256)
    return sha256_bytes(repr(parts).encode())[:16]


class TensorRtEngine:
    """One plan, one stream, two sets of states that take turns."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        trt = library()
        if trt is None:
            raise ValueError(f"{folder}: is a TensorRT engine, but TensorRT is not installed: {HINT}")
        try:
            cuda: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError:
            raise ValueError(f"{folder}: TensorRT needs CUDA's Python bindings: uv sync --extra tensorrt") from None
        self._trt, self._cuda, self.manifest = trt, cuda, manifest
        cached = folder / f"student.{_machine_key(trt, cuda, manifest)}.plan"
        runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        engine = runtime.deserialize_cuda_engine(cached.read_bytes()) if cached.is_file() else None
        if engine is None:  # another machine, driver or version than the plan's, or no plan yet
            with atomic_path(cached) as part:
                part.write_bytes(build_plan(trt, folder / manifest.model))
            engine = runtime.deserialize_cuda_engine(cached.read_bytes())
        if engine is None:
            raise ValueError(f"{cached}: built here, yet cannot be loaded on this GPU; use --target onnxruntime")
        self._engine, self._context = engine, engine.create_execution_context()
        self._stream = cuda.cudaStreamCreate()[1]
        self.name = f"tensorrt {trt.__version__} {manifest.precision}"
        self._shapes = {n: tuple(engine.get_tensor_shape(n)) for n in self._names()}
        self._turn = 0
        self._memory = [self._allocate() for _ in range(2)]

    def _names(self) -> list[str]:
        return [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]

    def _dtype(self, name: str) -> Any:
        return np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))

    def _allocate(self) -> dict[str, int]:
        """Device addresses of inputs, outputs and one set of states, zeroed."""
        addresses: dict[str, int] = {}
        for name in self._names():
            if name.endswith("_next"):
                continue
            size = int(np.prod(self._shapes[name])) * self._dtype(name).itemsize
            addresses[name] = self._cuda.cudaMalloc(size)[1]
            self._cuda.cudaMemset(addresses[name], 0, size)
        return addresses

    def init_state(self) -> Tensors:
        """Zero the states on the device; the returned dict is empty, since states never leave it."""
        for memory in self._memory:
            for name in self.manifest.states:
                size = int(np.prod(self._shapes[name])) * 4
                self._cuda.cudaMemset(memory[name], 0, size)
        return {}

    def step(self, inputs: Tensors, state: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        """One frame; shapes as in `deploy.engines.Engine.step`."""
        here, there = self._memory[self._turn], self._memory[1 - self._turn]
        kinds = self._cuda.cudaMemcpyKind
        for name, values in inputs.items():
            block = np.ascontiguousarray(values, self._dtype(name))
            self._cuda.cudaMemcpyAsync(
                here[name], block.ctypes.data, block.nbytes, kinds.cudaMemcpyHostToDevice, self._stream
            )
        for name in self._names():
            stem = name.removesuffix("_next")
            self._context.set_tensor_address(name, there[stem] if name.endswith("_next") else here[stem])
        if not self._context.execute_async_v3(self._stream):
            raise RuntimeError("TensorRT could not start a step; see its log above")
        logits = np.full(self._shapes["logits"], np.nan, np.float32)
        self._cuda.cudaMemcpyAsync(
            logits.ctypes.data, here["logits"], logits.nbytes, kinds.cudaMemcpyDeviceToHost, self._stream
        )
        fault = self._cuda.cudaStreamSynchronize(self._stream)[0]
        if int(fault) != 0:  # what a failed copy leaves is NaN, and the loop would refuse it; say why
            raise RuntimeError(f"CUDA failed during a step: {fault}")
        self._turn = 1 - self._turn
        return logits, state


def open_engine(folder: Path, manifest: Manifest) -> TensorRtEngine:
    """Entry point of `deploy.engines.load`."""
    return TensorRtEngine(folder, manifest)
