"""All that is needed to score: labels, predictions of what was given and of the baselines, the training split.

Shapes: T frames, H horizons, K draws, A units, S sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill import artefact
from dyad.layouts import processed, recordings
from dyad.metrics.checks import require_finite
from dyad.predictions import Predictions, PredictionStore
from dyad.provenance import read_json
from dyad.session import Session

if TYPE_CHECKING:
    from distill.evaluate import Config

Floats = NDArray[np.float32]
ROWS = ("model", "mean", "mimicry", "mimicry, spread", "another listener", "random", "last value", "ground truth")
"""Rows that every table has, as far as they can be computed."""
SEEN = ("train", "val")
"""Splits that nothing else is tuned on: thresholds of their sessions come from the split's other recordings."""


@dataclass(frozen=True)
class Case:
    """One session with what was predicted of it; `speaker` [T, A] and `truth` where they are known."""

    session: Session
    predicted: Predictions
    speaker: Floats | None
    truth: Path | None
    recording: str
    """What it shares with other sessions; intervals and thresholds never take it apart."""

    def true(self, horizon: int) -> Floats:
        """Annotated probability [T - horizon, A] that the predictions of a horizon were meant for."""
        return self.session.prob[horizon : self.length]

    def active(self, horizon: int) -> Floats:
        """The same for activations."""
        return self.session.act[horizon : self.length]

    @property
    def length(self) -> int:
        """Frames that are both annotated and predicted."""
        return min(self.session.n_frames, len(self.predicted.prob))


@dataclass(frozen=True)
class Baseline:
    """Another system's row: what it said of the scored sessions, in their order."""

    name: str
    horizons: tuple[int, ...]
    predicted: list[Predictions]
    tuning: list[Case]
    """Validation sessions for its thresholds, as `Evidence.tuning`."""
    draws: list[Floats] | None
    """[K, T, A] of every session; row t is what it showed at frame t."""
    look_ahead_frames: int = 0
    """How much of the future an answer may have used, as its card says."""


@dataclass(frozen=True)
class Evidence:
    """Everything that scoring reads."""

    source: str
    au_names: tuple[str, ...]
    horizons: tuple[int, ...]
    cases: list[Case]
    tuning: list[Case]
    """Validation sessions, when others are scored: thresholds come from them. Empty: the scored ones cross-fit."""
    fitting: list[Case]
    """Training sessions that are predicted too: the stochastic head comes from them."""
    train: list[Session]
    train_speakers: list[Floats | None]
    inputs: dict[str, str]
    left_out: list[str] = field(default_factory=list)
    baselines: list[Baseline] = field(default_factory=list)
    appropriate: NDArray[Any] | None = None
    """Which session's reaction is appropriate for which speaker [S, S]; None where nobody says."""

    @property
    def mean(self) -> Floats:
        """Training mean of every unit's probability, [A]; NaN where it was never annotated."""
        return _mean(np.concatenate([s.prob for s in self.train]))

    @property
    def rate(self) -> Floats:
        """Share of training frames in which each unit is active, [A]."""
        return _mean(np.concatenate([s.act for s in self.train]))


def _mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def gather(config: Config) -> Evidence:
    """Predict where needed and line everything up."""
    au_names = artefact.units(config)
    scored = processed.load(config.dataset, config.split, au_names=au_names)
    train = scored if config.split == "train" else processed.load(config.dataset, "train", au_names=au_names)
    aside = _aside(config, au_names)
    fitted_on = train if config.samples and config.split != "train" else []
    wanted = {config.split: scored} | ({"val": aside} if aside else {}) | ({"train": fitted_on} if fitted_on else {})
    stores, inputs = artefact.predict(config, au_names, wanted)
    store = stores[config.split]
    if config.horizon not in store.horizons:
        raise ValueError(f"horizon {config.horizon} is not predicted; choose one of {list(store.horizons)}")
    held = set(store.ids())
    cases = _cases(config.dataset, scored, store)
    if not cases:
        raise ValueError(f"none of the {len(scored)} sessions of {config.split!r} has predictions; predict them first")
    baselines = [_baseline(config, folder, au_names, cases, aside) for folder in config.baseline]
    _refuse_twins([b.name for b in baselines])
    return Evidence(
        source=str(config.checkpoint or config.engine or config.predictions),
        au_names=au_names,
        horizons=store.horizons,
        cases=cases,
        tuning=_cases(config.dataset, aside, stores.get("val")),
        fitting=_cases(config.dataset, fitted_on, stores.get("train")),
        train=train,
        train_speakers=[processed.speaker_units(config.dataset, s.id, au_names) for s in train],
        inputs=inputs,
        left_out=[s.id for s in scored if s.id not in held],
        baselines=baselines,
        appropriate=_appropriate(config, [c.session.id for c in cases]),
    )


def _aside(config: Config, au_names: tuple[str, ...]) -> list[Session]:
    """Validation sessions, where others than them and training's are scored and there are any."""
    there = (processed.root_of(config.dataset) / "processed" / "val" / "state.json").is_file()
    return processed.load(config.dataset, "val", au_names=au_names) if config.split not in SEEN and there else []


def _cases(root: Path, sessions: Sequence[Session], store: PredictionStore | None) -> list[Case]:
    """Those sessions that the store holds."""
    held, made = set(store.ids()) if store else set[str](), []
    for session, recording in zip(sessions, recordings.of(root, sessions), strict=True):
        if store and session.id in held:
            truth = processed.root_of(root) / "truth" / f"{session.id}.npz"
            speaker = processed.speaker_units(root, session.id, session.au_names)
            said = _read(store, session.id, session.au_names)
            made.append(Case(session, said, speaker, truth if truth.is_file() else None, recording))
    return made


def _read(store: PredictionStore, name: str, au_names: Sequence[str]) -> Predictions:
    """A session's predictions; raises ValueError that names the first one that is no probability."""
    said = store.read(name)
    for what, values in (("intensity", said.prob), ("activation", said.act_prob)):
        bad = ~((values >= 0) & (values <= 1))
        if bad.any():
            t, h, a = (int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"predictions of {name}: {what} of {au_names[a]} is {values[t, h, a]} at frame {t}, "
                f"{store.horizons[h]} frames ahead, but 0 to 1 is needed; predict the session anew"
            )
    return said


def _baseline(
    config: Config, folder: Path, au_names: tuple[str, ...], cases: Sequence[Case], aside: Sequence[Session]
) -> Baseline:
    """Read `predictions/`, `samples/` and `baseline.json` of a baseline's folder; a missing session is refused."""
    about = read_json(folder / "baseline.json") if (folder / "baseline.json").is_file() else {}
    store = PredictionStore.open_split(folder / "predictions", config.split, au_names=au_names)
    if store is None:
        raise ValueError(
            f"{folder}: no predictions/store.json nor predictions/{config.split}/store.json there; give a baseline's "
            "folder, or the --out of another evaluation of the same split"
        )
    if config.horizon not in store.horizons:
        raise ValueError(
            f"{folder}: predicts {list(store.horizons)} frames ahead, but {config.horizon} is scored; "
            "give --horizon one that both have"
        )
    held, wanted = set(store.ids()), [c.session.id for c in cases]
    lacking = [name for name in wanted if name not in held]
    if lacking:
        raise ValueError(f"{folder}: lacks {len(lacking)} of {len(wanted)} scored sessions, {lacking[0]} for one")
    draws = None
    if (folder / "samples").is_dir():
        draws = [_draws(folder / "samples" / f"{c.session.id}.npz", c, au_names) for c in cases]
    return Baseline(
        name=str(about.get("name", folder.name)),
        horizons=store.horizons,
        predicted=[_read(store, n, au_names) for n in wanted],
        tuning=_cases(
            config.dataset, aside, PredictionStore.open_split(folder / "predictions", "val", au_names=au_names)
        ),
        draws=draws,
        look_ahead_frames=int(about.get("look_ahead_frames", 0)),
    )


def _refuse_twins(names: Sequence[str]) -> None:
    """Raise ValueError for a baseline that is called like another row."""
    for i, name in enumerate(names):
        if name in (*ROWS, *names[:i]):
            raise ValueError(f"baseline {name!r} is the name of a row already; give its baseline.json another name")


def _draws(path: Path, case: Case, au_names: tuple[str, ...]) -> Floats:
    """Samples [K, T, A] of one session, as long as what is scored."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give samples of all scored sessions or none")
    with np.load(path, allow_pickle=False) as content:
        samples = np.asarray(content["samples"], np.float32)
        names = tuple(str(n) for n in content["names"]) if "names" in content else au_names
    if names != au_names:
        raise ValueError(f"{path}: samples of {', '.join(au_names)} are needed, in this order; got {', '.join(names)}")
    if samples.ndim != 3 or samples.shape[1] < case.length or samples.shape[2] != len(au_names):
        wanted = f"[K, T ≥ {case.length}, {len(au_names)}]"
        raise ValueError(f"{path}: samples {wanted} are needed; got {list(samples.shape)}; predict the session anew")
    for k, one in enumerate(samples):
        require_finite(one, session=f"{case.session.id}, sample {k}", channels=au_names)
    return samples


def _appropriate(config: Config, ids: Sequence[str]) -> NDArray[Any] | None:
    """Rows and columns of the scored sessions from `appropriate/<split>.npz`, which REACT's layouts bring."""
    path = processed.root_of(config.dataset) / "appropriate" / f"{config.split}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as content:
        names, matrix = [str(n) for n in content["ids"]], content["neighbours"]
    place = {name: i for i, name in enumerate(names)}
    if any(name not in place for name in ids):
        return None
    chosen = [place[name] for name in ids]
    return np.asarray(matrix[np.ix_(chosen, chosen)])
