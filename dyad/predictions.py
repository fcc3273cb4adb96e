"""What a student or an engine said of every session: the hand-over to evaluation.

Per session: `prob` [T, H, A] and `act_prob` [T, H, A] in [0, 1]. Row t is the prediction made at frame t; column h is
meant for frame t + horizons[h]. Shapes: T frames, H horizons, A units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyad.clock import FPS
from dyad.store import Floats, TensorStore

KIND = "predictions"
_NAMES = ("prob", "act_prob")


@dataclass(frozen=True)
class Predictions:
    """One session's predictions, each [T, H, A] float32."""

    prob: Floats
    act_prob: Floats


class PredictionStore:
    """A folder of predictions; made by `deploy.predict`, read by `distill.evaluate`."""

    def __init__(self, store: TensorStore) -> None:
        self._store = store

    @classmethod
    def create(
        cls, root: Path | str, *, au_names: Sequence[str], horizons: Sequence[int], source: str, run: Mapping[str, Any]
    ) -> "PredictionStore":
        """Start a store; `source` is the hash of the engine or checkpoint that predicts."""
        contract = {
            "kind": KIND,
            "au_names": list(au_names),
            "fps": FPS,
            "horizons": list(horizons),
            "source": source,
            "run": dict(run),
        }
        return cls(TensorStore.create(root, contract))

    @classmethod
    def open(cls, root: Path | str, *, au_names: Sequence[str]) -> "PredictionStore":
        """Open a store; another AU set or rate is refused by name."""
        store = TensorStore.open(root, kind=KIND)
        store.require_units(au_names, FPS)
        return cls(store)

    @classmethod
    def open_split(cls, root: Path, split: str, *, au_names: Sequence[str]) -> "PredictionStore | None":
        """Open the store `root`, or the one of a split that `distill.evaluate` keeps below it; None without either."""
        found = next((p for p in (root, root / split) if (p / "store.json").is_file()), None)
        return None if found is None else cls.open(found, au_names=au_names)

    @property
    def horizons(self) -> tuple[int, ...]:
        """Look-ahead of each column, frames."""
        return tuple(self._store.contract["horizons"])

    def write(self, session_id: str, prob: Floats, act_prob: Floats) -> None:
        """Write one session, all or nothing."""
        self._store.write(session_id, {"prob": prob, "act_prob": act_prob})

    def read(self, session_id: str) -> Predictions:
        """All frames of a session."""
        tensors = self._store.read(session_id)
        return Predictions(*(tensors[n] for n in _NAMES))

    def ids(self) -> list[str]:
        """Sessions in the store, sorted."""
        return self._store.ids()
