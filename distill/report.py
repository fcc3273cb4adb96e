"""From evidence to a report: one JSON file, tables on the terminal, one self-contained page.

Shapes: S sessions, A units.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill import activity as activations
from distill import attainable, movement, page, reactions, remarks, scoring, tables
from distill.activity import Activity
from distill.attainable import Bound
from distill.evidence import Evidence
from distill.movement import Movement, Robot
from distill.reactions import Reactions
from distill.scoring import MODEL, Score, System
from dyad.action_units import RARE
from dyad.config import as_dict
from dyad.metrics.bootstrap import Resampling
from dyad.provenance import atomic_path, run_card, write_json
from student.stochastic import Head

if TYPE_CHECKING:
    from distill.evaluate import Config

Floats = NDArray[np.float32]
MUST_BEAT = ("mean", "mimicry", "mimicry, spread")
DIGITS = 6
"""Significant ones of the figures in report.json; thresholds are exact, for frames lie on them."""


@dataclass(frozen=True)
class Report:
    """Everything that was scored."""

    evidence: Evidence
    horizon: int
    systems: dict[int, dict[str, System]]
    """By look-ahead, then by name."""
    over: Resampling
    activity: Activity
    movement: Movement
    reactions: Reactions
    bound: Bound | None
    head: Head | None
    draws: list[Floats] | None
    """The model's draws [K, T, A] of every session."""
    card: dict[str, Any]

    @property
    def main(self) -> dict[str, System]:
        """Model and rivals at the main look-ahead."""
        return self.systems[self.horizon]

    @property
    def members(self) -> dict[str, list[str]]:
        """Units of every frequency group."""
        names = self.evidence.au_names
        return {group: [names[a] for a in units] for group, units in scoring.groups_of(self.evidence).items()}

    @property
    def compared(self) -> list[str]:
        """Rows that the model's differences are taken to."""
        return [r for r in (*(b.name for b in self.evidence.baselines), *MUST_BEAT) if r in self.main]

    def differences(self) -> dict[str, dict[str, Score]]:
        """Rival → score → model minus rival, paired over sessions: every score but FRDvs that both have."""
        return {rival: self._difference(rival) for rival in self.compared}

    def _difference(self, rival: str) -> dict[str, Score]:
        active, tracks = self.activity.systems, self.movement.tracks
        made = scoring.differences(self.main[MODEL], self.main[rival], self.over)
        if rival in active:
            made |= scoring.differences(active[MODEL], active[rival], self.over)
        first, second = tracks[MODEL], tracks[rival]
        for n in movement.SCORES:
            drawn = first.resampled[n], second.resampled[n]
            made[n] = scoring.difference(first.scores[n].value, second.scores[n].value, drawn, self.over)
        drawn, values = self.reactions.resampled, self.reactions.scores
        for n, one in drawn[MODEL].items():
            pair = one, drawn[rival][n]
            made[n] = scoring.difference(values[MODEL][n], values[rival][n], pair, self.over)
        return made

    def unit_differences(self) -> dict[str, dict[str, dict[str, Score]]]:
        """Rival → unit → score → model minus rival."""
        units, active = self.evidence.au_names, self.activity.systems
        made: dict[str, dict[str, dict[str, Score]]] = {}
        for rival in self.compared:
            found = scoring.unit_differences(self.main[MODEL], self.main[rival], self.over)
            if rival in active:
                found |= scoring.unit_differences(active[MODEL], active[rival], self.over)
            made[rival] = {unit: {n: v[a] for n, v in found.items()} for a, unit in enumerate(units)}
        return made

    def undefined(self) -> list[str]:
        """Units that have no CCC and no skill in the scored sessions: they never vary, or nobody annotated them."""
        scores = self.main[MODEL].per_unit["ccc"]
        return [n for n, s in zip(self.evidence.au_names, scores, strict=True) if math.isnan(s.value)]

    def unknown(self) -> list[str]:
        """Those of them that nobody annotated."""
        known = np.any([~np.isnan(c.true(self.horizon)).all(axis=0) for c in self.evidence.cases], axis=0)
        return [n for n, k in zip(self.evidence.au_names, known, strict=True) if not k]

    def table(self) -> str:
        """For the terminal."""
        return "\n".join(_lines(self))

    def to_json(self) -> dict[str, Any]:
        """Plain data; what is undefined is null."""
        units = self.evidence.au_names
        active = self.activity
        content = {
            "sessions": len(self.evidence.cases),
            "recordings": self.over.independent,
            "left_out": self.evidence.left_out,
            "horizon_frames": self.horizon,
            "macro": {name: _with_counts(s) for name, s in self.main.items()},
            "differences": self.differences(),
            "unit_differences": self.unit_differences(),
            "horizons": {str(h): {name: s.macro for name, s in systems.items()} for h, systems in self.systems.items()},
            "per_unit": {name: _by_unit(s, units) for name, s in self.main.items()},
            "groups": {name: s.groups for name, s in self.main.items()},
            "group_members": self.members,
            "activity": {
                "macro": {name: _with_counts(s) for name, s in active.systems.items()},
                "per_unit": {name: _by_unit(s, units) for name, s in active.systems.items()},
                "groups": {name: s.groups for name, s in active.systems.items()},
                "tuned_on": active.tuned_on,
                "base_rate": dict(zip(units, active.base_rate, strict=True)),
                "reliability": {name: bins.tolist() for name, bins in active.reliability.items()},
                "tolerance_frames": active.tolerance_frames,
            },
            "movement": self.movement,
            "reactions": self.reactions,
            "bound": self.bound,
            "undefined_units": self.undefined(),
            "unknown_units": self.unknown(),
            "rare_units": [u for u in units if u in RARE],
            "run": self.card,
        }
        made = _plain(content)
        made["activity"]["thresholds"] = {n: dict(zip(units, v, strict=True)) for n, v in active.thresholds.items()}
        return made


def _with_counts(system: System) -> dict[str, dict[str, float | int]]:
    """Macro scores, and over how many units each is."""
    return {
        name: dataclasses.asdict(score) | ({"units": system.defined[name]} if name in system.defined else {})
        for name, score in system.macro.items()
    }


def _by_unit(system: System, units: tuple[str, ...]) -> dict[str, dict[str, Score]]:
    return {unit: {k: v[a] for k, v in system.per_unit.items()} for a, unit in enumerate(units)}


def make(evidence: Evidence, config: Config) -> Report:
    """Score everything."""
    robot = Robot.load(config.robot)
    head = reactions.head_of(evidence, config.horizon) if config.samples else None
    over = Resampling.of([case.recording for case in evidence.cases], config.resamples, config.seed)
    said = {h: scoring.curves(evidence, h, config.seed) for h in evidence.horizons}
    main = said[config.horizon]
    draws = reactions.draws_of(evidence, main[MODEL], head, config) if head else None
    return Report(
        evidence=evidence,
        horizon=config.horizon,
        over=over,
        systems={h: scoring.at_horizon(evidence, curves, h, over) for h, curves in said.items()},
        activity=activations.activity(
            evidence, config.horizon, over, seed=config.seed, tolerance_frames=config.tolerance_frames
        ),
        movement=movement.movement(evidence, main, config.horizon, over, robot),
        reactions=reactions.reactions(evidence, main, draws, config, over),
        bound=attainable.bound(
            evidence, config.horizon, config.bound_sessions, config.bound_listeners, config.resamples, config.seed
        ),
        head=head,
        draws=draws,
        card=run_card(command="distill.evaluate", config=as_dict(config), inputs=evidence.inputs),
    )


def write(report: Report, out: Path) -> None:
    """Write report.json, report.html and, with draws, the stochastic head; each all or nothing."""
    write_json(out / "report.json", report.to_json())
    if report.head is not None:
        report.head.save(out / "stochastic.npz")
    with atomic_path(out / "report.html") as part:
        part.write_text(page.render(report), encoding="utf8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}  # not: resamples
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _lines(report: Report) -> list[str]:
    evidence = report.evidence
    ahead_ms = round(report.horizon * 1000 / 30)
    lines = [f"{evidence.source}: {len(evidence.cases)} sessions, {ahead_ms} ms ahead, intervals over sessions (95 %)"]
    for table in tables.all_of(report):
        lines += ["", *table.text()]
    return [*lines, "", *remarks.remarks(report)]
