"""What a tuning run tells: a progress bar, metrics.jsonl and TensorBoard events."""

import json
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from dyad.provenance import atomic_path

FILE = "metrics.jsonl"
SHOWN = ("loss", "val_loss", "skill", "ccc")


class Log:
    """Open until `close`; one line per step."""

    def __init__(self, folder: Path, done: int, total: int) -> None:
        """`done` steps are behind; lines of later ones are dropped, since those steps are done, and told, again."""
        from torch.utils.tensorboard import SummaryWriter

        _forget_after(folder / FILE, done)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)
        self._progress = tqdm(total=total, initial=done, unit="step", mininterval=2.0)
        self._lines = (folder / FILE).open("a", encoding="utf8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A step's values, with its validation where there was one."""
        self._progress.update()
        if "val_loss" in values:
            self._progress.set_postfix({k: f"{values[k]:.3f}" for k in SHOWN})
        self._lines.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in values.items()}}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and release."""
        self._progress.close()
        self._board.close()
        self._lines.close()


def _forget_after(path: Path, step: int) -> None:
    if path.is_file():
        lines = path.read_text(encoding="utf8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        with atomic_path(path) as part:
            part.write_text("".join(line + "\n" for line in kept), encoding="utf8")
