"""TensorRT-RTX on a GeForce or RTX GPU: as TensorRT, from a plan that may have been built ahead of time, without a GPU.

Not for data-centre GPUs of compute capability 90 and 100, which the library does not know.
"""

from pathlib import Path

from deploy.engines.tensorrt import TensorRtEngine
from deploy.manifest import Manifest


def open_engine(folder: Path, manifest: Manifest) -> TensorRtEngine:
    """Entry point of `deploy.engines.load`."""
    return TensorRtEngine(folder, manifest, "tensorrt_rtx")
