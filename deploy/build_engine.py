"""Turn a checkpoint into the engine that the loop runs, or into files that other programs expect.

    python -m deploy.build_engine --checkpoint out/student/checkpoint --out out/engine
    python -m deploy.build_engine --checkpoint out/student/checkpoint --out out/formats --format all

checkpoint → step with named states → INT8 flavour → parity against torch → folder with manifest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deploy.formats import FIXED
from deploy.tensorrt_plan import CAPABILITIES
from dyad.config import parse, run_main

STAYS_FLOAT = (
    "layer norm and softmax: 8-bit sums lose too much",
    "attention products: no gain at a 64-frame window",
    "residual stream: errors would add up over the layers",
    "depth-wise convolutions over time: a handful of multiply-adds per frame",
    "log-mel: twelve decades of power",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which checkpoint, which engine."""

    checkpoint: Path
    """Folder written by python -m distill.train."""
    out: Path
    """Engine folder; replaced as a whole when the new engine has passed. With --format all, one folder in it each."""
    format: Literal["engine", "torchscript", "exported-program", "onnx", "quantized", "all"] = "engine"
    """engine: for --target. torchscript, exported-program: for torch. onnx: float. quantized: INT8 Q/DQ ONNX."""
    target: Literal["auto", "tensorrt", "tensorrt-rtx", "onnxruntime", "openvino"] = "auto"
    """Run-time of the engine. auto: TensorRT where a GPU and the library are, else ONNX Runtime."""
    precision: Literal["auto", "int8", "float32"] = "auto"
    """auto: INT8 for a quantisation-aware checkpoint, else float. int8 on a float checkpoint calibrates it first."""
    calibration: Path | None = None
    """Prepared dataset whose first frames calibrate a float checkpoint; without it, a drawn speaker does."""
    compute_capabilities: tuple[int, ...] = CAPABILITIES
    """GPUs that TensorRT-RTX builds for ahead of time, without one being here."""
    steps: int = 300
    """Recorded steps compared against torch."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built, before anything heavy is loaded."""
        if self.steps < 1:
            raise ValueError(f"steps must be 1 or more, got {self.steps}")
        if not self.compute_capabilities:
            raise ValueError("compute_capabilities must name one or more, such as 89")
        only = FIXED.get(self.format)
        if only and self.precision not in ("auto", only):
            other = "quantized" if self.format == "onnx" else "onnx"
            raise ValueError(f"--format {self.format} is always {only}; use --format {other} for {self.precision}")


def main(argv: list[str] | None = None) -> int:
    """Build, compare, and only then put the folder in place."""
    config = parse(Config, argv, prog="python -m deploy.build_engine", description=(__doc__ or "").splitlines()[0])
    if not (config.checkpoint / "spec.json").is_file():
        raise ValueError(f"{config.checkpoint}: no checkpoint there; make one with python -m distill.train")
    from deploy.builder import build

    report: dict[str, Any] = build(config)
    for key, value in report.items():
        print(f"{key:16s} {value}")
    return 0


if __name__ == "__main__":
    run_main(main)
