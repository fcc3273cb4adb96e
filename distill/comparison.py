"""Arms side by side: scores, and differences to the first arm with intervals over sessions.

Runs of one arm with several seeds are averaged score by score; a resample draws the same sessions for every arm and
seed, so that a difference is paired. The spread between seeds stands beside it.
Shapes: S sessions, H horizons, A units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill.arms import Run, settings, spec_of
from distill.batches import known_mean
from dyad.action_units import RARE, SEED17
from dyad.clock import FPS
from dyad.config import as_dict
from dyad.layouts import processed, recordings
from dyad.metrics import agreement, bootstrap
from dyad.metrics.bootstrap import Resampling
from dyad.provenance import atomic_path, run_card, write_json

if TYPE_CHECKING:
    from distill.ablate import Arms, Config

Array = NDArray[np.float64]


def macro_ccc(totals: Array) -> Array:
    """Mean CCC over the units that have one; [..., A, 8] → [...]."""
    return np.nanmean(agreement.scores(totals).ccc, axis=-1)


def skill(totals: Array) -> Array:
    """Share of squared error that the model takes off the mean predictor's; [..., A, 8] → [...]."""
    return agreement.scores(totals).total_skill


SCORES: dict[str, Callable[[Array], Array]] = {"macro CCC": macro_ccc, "skill": skill}
RANGES = {"macro CCC": (-1.0, 1.0), "skill": (-np.inf, 1.0)}


@dataclass(frozen=True)
class Row:
    """One arm: score → mean over seeds, its interval, its seeds, and the difference to the first arm with interval."""

    arm: str
    value: dict[str, float]
    interval: dict[str, tuple[float, float]]
    by_seed: dict[str, list[float]]
    difference: dict[str, tuple[float, float, float]]
    average_precision: float
    by_horizon: list[float]
    """Macro CCC of every horizon."""
    by_unit: list[float | None]
    """CCC of every unit at the horizon compared; None where it never varies."""


def rows_of(runs: Sequence[Run], horizon: int, resamples: int, of: Sequence[str] | None = None) -> list[Row]:
    """Rows in the order of the arms; the first one's differences are 0. `of` says each session's recording."""
    names = list(dict.fromkeys(run.arm for run in runs))
    over = Resampling.of(of or range(len(runs[0].sums)), resamples)
    point: dict[str, dict[str, Array]] = {}
    drawn: dict[str, dict[str, Array]] = {}
    for name in names:
        of_arm = [run.sums[:, horizon] for run in runs if run.arm == name]
        point[name] = {k: np.array([score(x.sum(axis=0)) for x in of_arm]) for k, score in SCORES.items()}
        drawn[name] = {
            k: np.mean([bootstrap.bootstrap(x, score, over.counts) for x in of_arm], axis=0)
            for k, score in SCORES.items()
        }
    first = names[0]
    made = []
    for name in names:
        of_arm = [run for run in runs if run.arm == name]
        units = np.mean([agreement.scores(run.sums[:, horizon].sum(axis=0)).ccc for run in of_arm], axis=0)
        made.append(
            Row(
                name,
                {k: float(v.mean()) for k, v in point[name].items()},
                {k: over.interval(float(point[name][k].mean()), drawn[name][k], RANGES[k]) for k in SCORES},
                {k: [round(float(x), 4) for x in v] for k, v in point[name].items()},
                {k: _gap(point[name][k] - point[first][k], drawn[name][k] - drawn[first][k], over) for k in SCORES},
                float(np.nanmean([run.precision[horizon] for run in of_arm])),
                [
                    float(np.mean([macro_ccc(r.sums[:, h].sum(axis=0)) for r in of_arm]))
                    for h in range(runs[0].sums.shape[1])
                ],
                [None if np.isnan(x) else round(float(x), 4) for x in units],
            )
        )
    return made


def _gap(gaps: Array, drawn: Array, over: Resampling) -> tuple[float, float, float]:
    """Mean difference of two arms over seeds, with its interval from the same of every resample [R]."""
    gap = float(gaps.mean())
    return gap, *over.interval(gap, drawn)


@dataclass(frozen=True)
class Comparison:
    """What an ablation found."""

    question: str
    rows: list[Row]
    sessions: int
    seeds: int
    bound: float | None
    """Attainable skill of these sessions; None where nobody knows it."""
    run: dict[str, Any]
    au_names: tuple[str, ...]
    horizons: tuple[int, ...]

    def table(self) -> str:
        """Markdown."""
        first = self.rows[0].arm
        head = ["arm", "macro CCC", f"minus “{first}”", "skill", f"minus “{first}”", "AUPRC"]
        if self.bound is not None:
            head.insert(5, "share of the attainable")
        rows: list[tuple[str, list[str]]] = []
        for row in self.rows:
            cells: list[str] = []
            for k in SCORES:
                low, high = row.interval[k]
                cells.append(f"{row.value[k]:.3f} [{low:.3f}, {high:.3f}]")
                gain, low, high = row.difference[k]
                cells.append("" if row.arm == first else f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]")
            if self.bound is not None:
                cells.append(f"{100 * row.value['skill'] / self.bound:.0f} %")
            rows.append((row.arm, [*cells, f"{row.average_precision:.3f}"]))
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        intro = f"{self.question} {self.sessions} held-out sessions, {seeds}; 95 % intervals over sessions."
        lines = [intro, "", *_markdown(head, rows)]
        if self.bound is not None:
            lines += ["", f"Attainable skill of these sessions: {self.bound:.3f}."]
        return "\n".join([*lines, "", *self._by_seed(), "", *self._by_horizon(), "", *self._rare()])

    def _by_seed(self) -> list[str]:
        """Differences of every seed: the intervals above are over sessions, not over seeds."""
        first = self.rows[0]
        rows = []
        for row in self.rows[1:]:
            gaps = [np.subtract(row.by_seed[k], first.by_seed[k]) for k in SCORES]
            rows.append((row.arm, [", ".join(f"{x:+.3f}" for x in gap) for gap in gaps]))
        return [f"Minus “{first.arm}”, seed by seed:", "", *_markdown(["arm", *SCORES], rows)]

    def _by_horizon(self) -> list[str]:
        """Macro CCC at every look-ahead."""
        ahead = [f"{1000 * h / FPS:.0f} ms" for h in self.horizons]
        rows = [(row.arm, [f"{x:.3f}" for x in row.by_horizon]) for row in self.rows]
        return ["Macro CCC at every look-ahead:", "", *_markdown(["arm", *ahead], rows)]

    def _rare(self) -> list[str]:
        """CCC of the units that seldom move."""
        places = [i for i, name in enumerate(self.au_names) if name in RARE]
        values = [(row.arm, [row.by_unit[i] for i in places]) for row in self.rows]
        rows = [(arm, ["–" if x is None else f"{x:.3f}" for x in units]) for arm, units in values]
        return ["CCC of the rare units:", "", *_markdown(["arm", *(self.au_names[i] for i in places)], rows)]

    def write(self, out: Path) -> None:
        """table.md and results.json in a folder."""
        self.write_results(out / "results.json")
        with atomic_path(out / "table.md") as part:
            part.write_text(self.table() + "\n", encoding="utf8")

    def write_results(self, path: Path) -> None:
        """All figures as JSON."""
        content = {"question": self.question, "bound_skill": self.bound, "sessions": self.sessions}
        rows = [as_dict(row) for row in self.rows]
        write_json(path, content | {"seeds": self.seeds, "arms": rows, "run": self.run})


def _markdown(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join([name, *cells]) + " |" for name, cells in rows]


def put_between(path: Path, mark: str, text: str) -> None:
    """Replace what stands between <!-- mark:begin --> and <!-- mark:end --> of a Markdown file."""
    before, after = around(path, mark)
    with atomic_path(path) as part:
        part.write_text(f"{before}\n{text}\n{after}", encoding="utf8")


def around(path: Path, mark: str) -> tuple[str, str]:
    """A Markdown file up to its begin mark and from its end mark on; raises ValueError for one without the two."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    whole = path.read_text(encoding="utf8") if path.is_file() else ""
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(end) < whole.index(begin):
        raise ValueError(f"{path}: needs one line {begin} and one line {end}, for the table between them")
    return whole[: whole.index(begin) + len(begin)], whole[whole.index(end) :]


def compare(config: Config, arms: Arms, runs: Sequence[Run], question: str = "") -> Comparison:
    """Score the runs and, on synthetic dyads, the bound. `question` stands instead of the arms' own."""
    spec = spec_of(settings(config, arms, next(iter(arms.arms)), runs[0].seed))
    sessions = processed.load(config.dataset, "val", au_names=spec.au_names)
    recording = dict(zip((s.id for s in sessions), recordings.of(config.dataset, sessions), strict=True))
    return Comparison(
        question or arms.question,
        rows_of(runs, config.horizon, config.resamples, [recording[name] for name in runs[0].ids]),
        len(runs[0].sums),
        len({run.seed for run in runs}),
        _bound(config, sessions),
        run_card(command="distill.ablate", config=as_dict(config)),
        spec.au_names,
        spec.horizons,
    )


def _bound(config: Config, sessions: Sequence[Any]) -> float | None:
    from dyad.synthetic.bound import attainable_skill

    root = processed.root_of(config.dataset)
    known = all((root / "truth" / f"{s.id}.npz").is_file() and s.au_names == SEED17.units for s in sessions)
    if not config.bound_listeners or not known:
        return None
    mean = known_mean([s.prob for s in processed.load(config.dataset, "train")])
    return attainable_skill(root, sessions, mean, config.horizon, listeners=config.bound_listeners)
