"""The hand-over from teacher to student: soft action units of every session at 30 Hz.

Per session: `prob` [T, A] in [0, 1], `act_logit` [T, A] (log-odds that the unit is active), `uncertainty` [T, A] ≥ 0
(standard deviation of the probability over overlapping windows and stochastic passes). Shapes: T frames, A units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyad.clock import FPS
from dyad.provenance import read_json, write_json
from dyad.store import Floats, TensorStore

KIND = "soft-labels"
_NAMES = ("prob", "act_logit", "uncertainty")


@dataclass(frozen=True)
class SoftLabels:
    """A stretch of one session, each [T, A] float32."""

    prob: Floats
    act_logit: Floats
    uncertainty: Floats


class SoftLabelStore:
    """A folder of soft labels; made by `teacher.label`, read by `distill.train`."""

    def __init__(self, store: TensorStore) -> None:
        self._store = store

    @classmethod
    def create(
        cls,
        root: Path | str,
        *,
        au_names: Sequence[str],
        teacher_hash: str,
        run: Mapping[str, Any],
        recipe: Mapping[str, Any] | None = None,
        fps: int = FPS,
    ) -> "SoftLabelStore":
        """Start a store or go on with one; another AU set, rate, teacher or recipe (how it was asked) is refused."""
        contract = {"kind": KIND, "au_names": list(au_names), "fps": fps, "teacher": teacher_hash, "run": dict(run)}
        contract |= {} if recipe is None else {"recipe": dict(recipe)}
        return cls(TensorStore.create(root, contract))

    @classmethod
    def open(cls, root: Path | str, *, au_names: Sequence[str] | None = None) -> "SoftLabelStore":
        """Open a store; another AU set or rate than wanted is refused by name."""
        store = TensorStore.open(root, kind=KIND)
        store.require_units(au_names if au_names is not None else store.contract["au_names"], FPS)
        return cls(store)

    @property
    def au_names(self) -> tuple[str, ...]:
        """Units of the columns."""
        return tuple(self._store.contract["au_names"])

    @property
    def teacher_hash(self) -> str:
        """Hash of the teacher that made the labels."""
        return self._store.contract["teacher"]

    def write(self, session_id: str, prob: Floats, act_logit: Floats, uncertainty: Floats) -> None:
        """Write one session, all or nothing; values outside their ranges are refused."""
        if prob.min() < 0 or prob.max() > 1:
            raise ValueError(f"session {session_id}: prob outside [0, 1] ({prob.min()}, {prob.max()})")
        wanted = (len(prob), len(self.au_names))
        for name, tensor in (("prob", prob), ("act_logit", act_logit), ("uncertainty", uncertainty)):
            if tensor.shape != wanted:
                raise ValueError(f"session {session_id}: {name} has shape {tensor.shape}, wanted {wanted}")
        self._store.write(session_id, dict(zip(_NAMES, (prob, act_logit, uncertainty), strict=True)))

    def read(self, session_id: str, start: int = 0, stop: int | None = None) -> SoftLabels:
        """Frames [start, stop) of a session."""
        tensors = self._store.read(session_id, start, stop)
        return SoftLabels(*(tensors[n] for n in _NAMES))

    def ids(self) -> list[str]:
        """Sessions in the store, sorted."""
        return self._store.ids()

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._store

    def remove(self, session_id: str) -> None:
        """Drop a session, so that the next labelling run makes it again."""
        self._store.path(session_id).unlink(missing_ok=True)

    @property
    def quality_path(self) -> Path:
        """Where the verdict on the labels lies."""
        return self._store.root / "quality.json"

    def write_quality(self, verdict: Mapping[str, Any]) -> None:
        """Keep the verdict of the quality gate; `drop` lists session → reasons."""
        write_json(self.quality_path, dict(verdict))

    def dropped(self) -> dict[str, list[str]]:
        """Sessions that the quality gate found not worth learning from, with the reasons; none where it never ran."""
        return dict(read_json(self.quality_path)["drop"]) if self.quality_path.is_file() else {}

    def broken(self) -> list[tuple[str, str]]:
        """(session, reason) of every damaged shard; the others are unaffected."""
        return self._store.broken(_NAMES)
