"""Turn a checkpoint into the engine that the loop runs.

    python -m deploy.build_engine --checkpoint out/student/checkpoint --out out/engine

checkpoint → ONNX step with named states → INT8 flavour → parity against torch → folder with manifest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dyad.config import as_dict, parse, run_main

STAYS_FLOAT = (
    "layer norm and softmax: 8-bit sums lose too much",
    "attention products: no gain at a 64-frame window",
    "residual stream: errors would add up over the layers",
    "depth-wise convolutions over time: a handful of multiply-adds per frame",
    "log-mel: twelve decades of power",
    "heads: they set calibration",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which checkpoint, which engine."""

    checkpoint: Path
    """Folder written by python -m distill.train."""
    out: Path
    """Engine folder; replaced as a whole when the new engine has passed."""
    target: Literal["auto", "onnxruntime", "tensorrt"] = "auto"
    """auto: TensorRT where a GPU and the library are, else ONNX Runtime."""
    precision: Literal["auto", "int8", "float32"] = "auto"
    """auto: INT8 for a quantisation-aware checkpoint, else float. int8 on a float checkpoint calibrates it first."""
    steps: int = 300
    """Recorded steps compared against torch."""


def main(argv: list[str] | None = None) -> int:
    """Build, compare, and only then put the folder in place."""
    config = parse(Config, argv, prog="python -m deploy.build_engine", description=(__doc__ or "").splitlines()[0])
    if not (config.checkpoint / "spec.json").is_file():
        raise ValueError(f"{config.checkpoint}: no checkpoint there; make one with python -m distill.train")
    from deploy.builder import build

    report: dict[str, Any] = build(
        config.checkpoint,
        config.out,
        target=config.target,
        precision=config.precision,
        steps=config.steps,
        config=as_dict(config),
    )
    for key, value in report.items():
        print(f"{key:14s} {value}")
    return 0


if __name__ == "__main__":
    run_main(main)
