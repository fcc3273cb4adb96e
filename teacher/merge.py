"""Fold a tuned teacher's adapter into its base: one folder that transformers and vLLM both serve.

    python -m teacher.merge --teacher out/teacher --out out/merged

The labels stay the same, up to rounding to --dtype. The folder is written beside its name and takes it when whole.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dyad.config import parse, run_main
from dyad.provenance import read_json


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which teacher, and where the merged one goes."""

    teacher: Path
    """Folder written by python -m teacher.tune."""
    out: Path
    """Folder to serve from; an earlier merged teacher there is replaced, anything else is refused."""
    base: str | None = None
    """Where the base lies now, if not where the teacher was tuned."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the weights. auto: as the base was released."""
    shard_gb: float = 5.0
    """Gigabytes of a weight file at most."""

    def __post_init__(self) -> None:
        """Refuse files of no size."""
        if self.shard_gb <= 0:
            raise ValueError(f"shard_gb must be above 0, got {self.shard_gb}")


def main(argv: list[str] | None = None) -> int:
    """Refuse before anything heavy is imported; then merge."""
    config = parse(Config, argv, prog="python -m teacher.merge", description=(__doc__ or "").splitlines()[0])
    if not (config.teacher / "teacher.json").is_file():
        raise ValueError(f"{config.teacher}: no teacher there; make one with python -m teacher.tune")
    if is_merged(config.teacher):
        raise ValueError(f"{config.teacher}: is merged already; serve it as it is")
    if config.out.exists() and not is_merged(config.out) and (config.out.is_file() or any(config.out.iterdir())):
        raise ValueError(f"{config.out}: holds something else than a merged teacher; give another --out")
    from teacher import merged

    gigabytes = merged.write(config)
    print(f"merged teacher: {config.out}, {gigabytes:.3g} GB of weights")
    return 0


def is_merged(folder: Path) -> bool:
    """Whether `folder` holds a merged teacher."""
    path = folder / "teacher.json"
    return path.is_file() and bool(read_json(path).get("merged"))


if __name__ == "__main__":
    run_main(main)
