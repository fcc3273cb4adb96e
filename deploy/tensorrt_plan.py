"""TensorRT plans: built from the canonical graph, kept beside it, and built again where they do not fit.

    student.<key>.plan   bound to GPU, driver, library version and graph: the key is a hash of all four
    student.plan         TensorRT-RTX, built ahead of time: bound to the library's version and some compute capabilities
    student.timing       what the builder measured, so that the next build is short

Precision lives in the graph's Q/DQ pairs alone: TensorRT 11 has no precision flags, no calibrators and no dynamic
ranges any more. Only names that 10.9 to 11.4 share are used here.
"""

import contextlib
import ctypes
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.manifest import Manifest
from dyad.provenance import atomic_path, sha256_bytes, sha256_file

AHEAD = "student.plan"
TIMING = "student.timing"
CAPABILITIES = (80, 86, 89, 120)
"""Compute capabilities that TensorRT-RTX 1.7 builds the INT8 step for; it refuses 75 and knows no 90 or 100."""


def library(name: str = "tensorrt") -> Any:
    """Python module of a TensorRT flavour, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):  # missing shared libraries surface as either
        return None


def has_driver() -> bool:
    """Whether an NVIDIA driver is here."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def capability() -> int | None:
    """Compute capability of the first GPU, 89 for 8.9, from the driver itself; None where there is none."""
    if not has_driver():
        return None
    driver = ctypes.CDLL("libcuda.so.1")
    device, parts = ctypes.c_int(), (ctypes.c_int(), ctypes.c_int())
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    for part, attribute in zip(parts, (75, 76), strict=True):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        if driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device):
            return None
    return 10 * parts[0].value + parts[1].value


def is_usable(name: str = "tensorrt") -> bool:
    """Whether a driver and the library are here, and, for TensorRT-RTX, a GPU that it builds for."""
    if not has_driver() or library(name) is None:
        return False
    return name != "tensorrt_rtx" or capability() in CAPABILITIES


def _ask_for(trt: Any, options: Any, capabilities: Sequence[int]) -> None:
    """Build for these GPUs instead of the one here (TensorRT-RTX only)."""
    kinds = trt.ComputeCapability
    known = sorted(int(n[2:]) for n in dir(kinds) if n.startswith("SM"))
    if unknown := sorted(set(capabilities) - set(known)):
        raise ValueError(
            f"compute capability {unknown[0]}: {trt.__name__} {trt.__version__} builds for "
            f"{', '.join(map(str, known))} only; change --compute-capabilities, or use --target tensorrt on that GPU"
        )
    options.num_compute_capabilities = len(capabilities)
    for place, capability in enumerate(capabilities):
        options.set_compute_capability(getattr(kinds, f"SM{capability}"), place)


def _remember_timings(options: Any, path: Path) -> Any:
    """The builder's cache of measured kernels, from the file where that fits this machine, else empty."""
    cache = options.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not options.set_timing_cache(cache, False):
        cache = options.create_timing_cache(b"")
        options.set_timing_cache(cache, False)
    return options.get_timing_cache()


def build_plan(trt: Any, graph: Path, *, capabilities: Sequence[int] = (), timing: Path | None = None) -> bytes:
    """Parse the canonical graph and build a plan; raises ValueError with the parser's own words.

    `capabilities` empty: for the GPU here. `timing`: file of measured kernels, read and written.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    flags = trt.NetworkDefinitionCreationFlag
    typed = 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0  # 10: needed; 11: always on
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        words = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ValueError(f"{graph}: {trt.__name__} refuses it: {words}; build it for --target onnxruntime")
    options = builder.create_builder_config()
    if capabilities:
        _ask_for(trt, options, capabilities)
    cache = _remember_timings(options, timing) if timing else None
    plan = builder.build_serialized_network(network, options)
    if plan is None:
        where = f"compute capabilities {', '.join(map(str, capabilities))}" if capabilities else "this machine"
        raise ValueError(f"{graph}: {trt.__name__} {trt.__version__} could not build it for {where}; see its log above")
    if timing and cache is not None:
        _keep(timing, bytes(cache.serialize()))
    return bytes(plan)


def _keep(path: Path, content: bytes) -> None:
    """Write beside the graph; where the folder cannot be written to, the next start builds again."""
    with contextlib.suppress(OSError), atomic_path(path) as part:
        part.write_bytes(content)


def build_ahead(folder: Path, graph: Path, capabilities: Sequence[int]) -> dict[str, str]:
    """Build a TensorRT-RTX plan without a GPU; returns what the manifest says about it."""
    trt = library("tensorrt_rtx")
    assert trt is not None
    (folder / AHEAD).write_bytes(build_plan(trt, graph, capabilities=capabilities))
    return {
        "plan": AHEAD,
        "plan_sha256": sha256_file(folder / AHEAD),
        "library": f"{trt.__name__} {trt.__version__}",
        "compute_capabilities": " ".join(map(str, capabilities)),
    }


def machine_key(trt: Any, cuda: Any, manifest: Manifest) -> str:
    """What a plan is bound to: GPU, driver, library version and graph, as a short hash."""
    device, driver = cuda.cudaGetDeviceProperties(0)[1], cuda.cudaDriverGetVersion()[1]
    parts = (device.name, device.major, device.minor, driver, trt.__name__, trt.__version__, manifest.model_sha256)
    return sha256_bytes(repr(parts).encode())[:16]


def _ready_plans(trt: Any, folder: Path, manifest: Manifest, key: str) -> list[Path]:
    """Plans that may fit: this machine's own, then the one built ahead of time if it is whole and of this version."""
    about, own = manifest.device, folder / f"student.{key}.plan"
    found = [own] if own.is_file() else []
    ahead = folder / about.get("plan", AHEAD)
    if about.get("library") == f"{trt.__name__} {trt.__version__}" and ahead.is_file():
        found += [ahead] if sha256_file(ahead) == about.get("plan_sha256") else []
    return found


def open_plan(trt: Any, runtime: Any, folder: Path, manifest: Manifest, key: str) -> Any:
    """A plan ready to run on this machine: one that lies here, else built now and kept.

    A plan of another GPU, driver or version, or one that no longer loads, is left aside and built again.
    """
    for path in _ready_plans(trt, folder, manifest, key):
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is not None:
            return engine
    plan = build_plan(trt, folder / manifest.model, timing=folder / TIMING)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ValueError(f"{folder}: a plan built here cannot be loaded on this GPU; use --target onnxruntime")
    _keep(folder / f"student.{key}.plan", plan)
    return engine
