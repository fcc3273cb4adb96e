"""A folder of tensors, one safetensors file per session, with a contract that travels along.

    ROOT/store.json            kind, AU set, rate, what the tensors are, who made them
    ROOT/<session>.safetensors the tensors, memory-mapped on reading

Every file is written beside and renamed, so that a kill leaves whole files only; the bytes depend on the content
alone, so that an interrupted run and a straight one give the same store.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dyad.provenance import atomic_path, read_json, write_json

Floats = NDArray[np.float32]


def _file_name(session_id: str) -> str:
    """A session's file name; ids with separators would leave the folder."""
    if not session_id or any(c in session_id for c in "/\\\0") or session_id.startswith("."):
        raise ValueError(f"session id {session_id!r} cannot name a file; use letters, digits, '_', '-' and '.'")
    return f"{session_id}.safetensors"


class TensorStore:
    """Sessions' float32 tensors of fixed names; the first axis of each is time at 30 Hz."""

    def __init__(self, root: Path, contract: dict[str, Any]) -> None:
        self.root = root
        self.contract = contract

    @classmethod
    def create(cls, root: Path | str, contract: Mapping[str, Any]) -> "TensorStore":
        """Start a store, or go on with one of the same contract; another contract is refused by the differing key."""
        root = Path(root)
        if (root / "store.json").is_file():
            store = cls.open(root, kind=str(contract["kind"]))
            for key, value in contract.items():
                if key != "run" and store.contract.get(key) != json.loads(json.dumps(value)):
                    raise ValueError(
                        f"{root}: was begun with {key} = {store.contract.get(key)!r}, but this run has {value!r}; "
                        "give another --out or remove the folder"
                    )
            return store
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / "store.json", dict(contract))
        return cls(root, json.loads(json.dumps(dict(contract))))

    @classmethod
    def open(cls, root: Path | str, *, kind: str) -> "TensorStore":
        """Open an existing store of this kind; raises ValueError otherwise."""
        root = Path(root)
        if not (root / "store.json").is_file():
            raise ValueError(f"{root}: no {kind} store there (store.json is missing); check the path")
        contract = read_json(root / "store.json")
        if contract.get("kind") != kind:
            raise ValueError(f"{root}: holds {contract.get('kind')!r}, wanted {kind!r}")
        return cls(root, contract)

    def require_units(self, au_names: Sequence[str], fps: int) -> None:
        """Refuse a store of another AU set or rate, by name."""
        held = tuple(self.contract["au_names"])
        if held != tuple(au_names):
            odd = sorted(set(held) ^ set(au_names)) or ["the order"]
            raise ValueError(f"{self.root}: made for other action units ({', '.join(odd)} differ); make it again")
        if self.contract["fps"] != fps:
            raise ValueError(f"{self.root}: made at {self.contract['fps']} frames per second, wanted {fps}")

    def path(self, session_id: str) -> Path:
        """File of a session, existing or not."""
        return self.root / _file_name(session_id)

    def write(self, session_id: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Write one session, all or nothing; NaN, infinities and unequal lengths are refused."""
        lengths = {name: len(t) for name, t in tensors.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"session {session_id}: tensors of unequal length {lengths}")
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ValueError(f"session {session_id}: {name} holds NaN or infinity; refused")
        with atomic_path(self.path(session_id)) as part:
            part.write_bytes(save({n: np.ascontiguousarray(t, np.float32) for n, t in tensors.items()}))

    def read(self, session_id: str, start: int = 0, stop: int | None = None) -> dict[str, Floats]:
        """Frames [start, stop) of every tensor; raises ValueError naming a missing or damaged file."""
        path = self.path(session_id)
        if not path.is_file():
            raise ValueError(f"{path}: no such session in the store; make it with the run that wrote the store")
        try:
            with safe_open(str(path), framework="numpy") as file:
                return {name: file.get_slice(name)[start:stop] for name in file.keys()}  # noqa: SIM118 - no dict
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: damaged ({error}); delete this file and run the writer again") from None

    def ids(self) -> list[str]:
        """Sessions in the store, sorted."""
        return sorted(p.stem for p in self.root.glob("*.safetensors"))

    def __contains__(self, session_id: str) -> bool:
        return self.path(session_id).is_file()

    def broken(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """(session, reason) of every file that cannot be read, lacks one of `names`, or holds NaN or odd shapes."""
        found: list[tuple[str, str]] = []
        for session_id in self.ids():
            try:
                tensors = self.read(session_id)
            except ValueError as error:
                found.append((session_id, str(error)))
                continue
            lacking = [n for n in names if n not in tensors]
            if lacking:
                found.append((session_id, f"lacks {', '.join(lacking)}"))
            elif not all(np.isfinite(t).all() for t in tensors.values()):
                found.append((session_id, "holds NaN or infinity"))
            elif odd := self._odd_shape(tensors):
                found.append((session_id, odd))
        return found

    def _odd_shape(self, tensors: Mapping[str, Floats]) -> str:
        """The first tensor that is not as long as the longest or does not end in the store's units, or ""."""
        n_frames, n_units = max(len(t) for t in tensors.values()), len(self.contract["au_names"])
        for name, tensor in tensors.items():
            if len(tensor) != n_frames or tensor.shape[-1] != n_units:
                return f"{name} has shape {tensor.shape}, wanted ({n_frames}, …, {n_units}) (frames, …, units)"
        return ""
