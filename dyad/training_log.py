"""What a training run tells: a progress bar, metrics.jsonl and TensorBoard events.

The teacher's tuning, the student's distillation and the baselines write the same files, so that one reader reads all.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from dyad.provenance import atomic_path

FILE = "metrics.jsonl"


class TrainingLog:
    """Open until `close`; one line per step."""

    def __init__(self, folder: Path, done: int, total: int, *, shown: Sequence[str]) -> None:
        """`done` steps are behind; lines of later ones are dropped, since those steps are done, and told, again.

        The progress bar shows `shown` whenever a step brings all of them, that is after a validation.
        """
        from torch.utils.tensorboard import SummaryWriter

        _forget_after(folder / FILE, done)
        self._shown = tuple(shown)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)
        self._progress = tqdm(total=total, initial=done, unit="step", mininterval=2.0)
        self._lines = (folder / FILE).open("a", encoding="utf8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A step's values, with its validation where there was one."""
        self._progress.update()
        if all(name in values for name in self._shown):
            self._progress.set_postfix({name: f"{values[name]:.3f}" for name in self._shown})
        self._lines.write(json.dumps({"step": step, **{k: float(f"{v:.6g}") for k, v in values.items()}}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and release."""
        self._progress.close()
        self._board.close()
        self._lines.close()


def _forget_after(path: Path, step: int) -> None:
    """Keep the whole lines of steps up to `step`; a line that a kill cut short goes too."""
    if path.is_file():
        lines = path.read_text(encoding="utf8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        with atomic_path(path) as part:
            part.write_text("".join(line + "\n" for line in kept), encoding="utf8")
