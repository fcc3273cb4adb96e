"""What a run tells while it trains: a progress bar, metrics.jsonl, TensorBoard events."""

import json
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from dyad.provenance import atomic_path

FILE = "metrics.jsonl"


class Log:
    """Open until `close`; one line per step."""

    def __init__(self, folder: Path, done: int, total: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / "tensorboard"))
        self._progress = tqdm(total=total, initial=done, unit="step", mininterval=2.0)
        self._lines = (folder / FILE).open("a", encoding="utf8")

    def write(self, step: int, terms: Mapping[str, float]) -> None:
        """The terms of a step, and its validation where there was one."""
        self._progress.update()
        if "skill_h4" in terms:
            self._progress.set_postfix({k: f"{terms[k]:.3f}" for k in ("loss", "skill_h4", "ccc_h4")})
        self._lines.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in terms.items()}}) + "\n")
        self._lines.flush()
        for name, value in terms.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and release."""
        self._progress.close()
        self._board.close()
        self._lines.close()


def forget_after(folder: Path, step: int) -> None:
    """Drop the lines after a resume point: those steps are done, and told, again."""
    path = folder / FILE
    if path.is_file():
        lines = path.read_text(encoding="utf8").splitlines()[:step]
        with atomic_path(path) as part:
            part.write_text("".join(line + "\n" for line in lines), encoding="utf8")
