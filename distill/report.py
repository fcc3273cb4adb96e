"""From evidence to a report: one JSON file, one table for the terminal, one self-contained page.

Shapes: S sessions, A units.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import page, scoring
from distill.evidence import Evidence
from distill.scoring import MODEL, Activity, Bound, Score, System
from dyad.action_units import RARE
from dyad.config import as_dict
from dyad.provenance import atomic_path, run_card, write_json

if TYPE_CHECKING:
    from distill.evaluate import Config

MUST_BEAT = ("mean", "mimicry", "mimicry, spread")
MACRO = {
    "macro_ccc": "CCC",
    "macro_skill": "skill",
    "macro_pearson": "Pearson",
    "macro_mae": "MAE",
    "macro_ccc_rare": "CCC rare",
}


@dataclass(frozen=True)
class Report:
    """Everything that was scored."""

    evidence: Evidence
    horizon: int
    systems: dict[int, dict[str, System]]
    """By look-ahead, then by name."""
    activity: Activity
    bound: Bound | None
    card: dict[str, Any]

    @property
    def main(self) -> dict[str, System]:
        """Model and rivals at the main look-ahead."""
        return self.systems[self.horizon]

    def differences(self) -> dict[str, dict[str, Score]]:
        """Rival → score → model minus rival, paired over sessions."""
        return {
            rival: {n: scoring.difference(self.main[MODEL], self.main[rival], n) for n in ("macro_ccc", "macro_skill")}
            for rival in MUST_BEAT
            if rival in self.main
        }

    def undefined(self) -> list[str]:
        """Units that never vary in the scored sessions: no CCC, no skill."""
        scores = self.main[MODEL].per_unit["ccc"]
        return [n for n, s in zip(self.evidence.au_names, scores, strict=True) if math.isnan(s.value)]

    def table(self) -> str:
        """For the terminal."""
        return "\n".join(_lines(self))

    def to_json(self) -> dict[str, Any]:
        """Plain data; what is undefined is null."""
        units = self.evidence.au_names
        content = {
            "sessions": len(self.evidence.cases),
            "left_out": self.evidence.left_out,
            "horizon_frames": self.horizon,
            "macro": {name: s.macro for name, s in self.main.items()},
            "differences": self.differences(),
            "horizons": {str(h): {name: s.macro for name, s in systems.items()} for h, systems in self.systems.items()},
            "per_unit": {
                name: {unit: {k: v[a] for k, v in s.per_unit.items()} for a, unit in enumerate(units)}
                for name, s in self.main.items()
            },
            "activity": self.activity,
            "bound": self.bound,
            "undefined_units": self.undefined(),
            "rare_units": [u for u in units if u in RARE],
            "run": self.card,
        }
        return _plain(content)


def make(evidence: Evidence, config: Config) -> Report:
    """Score everything."""
    counts = scoring.draws(len(evidence.cases), config.resamples, config.seed)
    rare = [a for a, unit in enumerate(evidence.au_names) if unit in RARE]
    return Report(
        evidence=evidence,
        horizon=config.horizon,
        systems={h: scoring.at_horizon(evidence, h, counts, rare, config.seed) for h in evidence.horizons},
        activity=scoring.activity(evidence, config.horizon, counts, config.seed),
        bound=scoring.bound(
            evidence, config.horizon, config.bound_sessions, config.bound_listeners, config.resamples, config.seed
        ),
        card=run_card(command="distill.evaluate", config=as_dict(config), inputs=evidence.inputs),
    )


def write(report: Report, out: Path) -> None:
    """Write report.json and report.html, each all or nothing."""
    write_json(out / "report.json", report.to_json())
    with atomic_path(out / "report.html") as part:
        part.write_text(page.render(report), encoding="utf8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell(score: Score) -> str:
    """`0.310 [0.250, 0.360]`; a dash when undefined, no interval for a single session."""
    if not math.isfinite(score.value):
        return "–"
    return f"{score.value:.3f}{_interval(score)}"


def _interval(score: Score, sign: str = "") -> str:
    return f" [{score.low:{sign}.3f}, {score.high:{sign}.3f}]" if math.isfinite(score.low) else ""


def _lines(report: Report) -> list[str]:
    evidence, main = report.evidence, report.main
    ahead_ms = round(report.horizon * 1000 / 30)
    lines = [f"{evidence.source}: {len(evidence.cases)} sessions, {ahead_ms} ms ahead, intervals over sessions (95 %)"]
    width = max(len(n) for n in main)
    lines.append(f"{'':{width}}  " + "".join(f"{title:>24}" for title in MACRO.values()))
    for name in scoring.shown(main):
        lines.append(f"{name:{width}}  " + "".join(f"{cell(main[name].macro[k]):>24}" for k in MACRO))
    if "mimicry" not in main:
        lines.append("mimicry is left out: the speakers' own action units are not known (speaker_au/<session>.npz)")
    for rival, scores in report.differences().items():
        parts = [f"{MACRO[n]} {s.value:+.3f}{_interval(s, '+')}" for n, s in scores.items()]
        lines.append(f"model minus {rival}: " + ", ".join(parts))
    act = report.activity
    lines.append(
        f"active or not: macro F1 {cell(act.macro_f1)}, AUPRC {cell(act.macro_auprc)} over {act.defined} units"
    )
    lines.append(f"  thresholds tuned on {act.tuned_on}")
    if report.bound is not None:
        b = report.bound
        lines.append(
            f"attainable by any causal predictor ({b.sessions} sessions): skill {b.skill:.3f}, CCC {b.ccc:.3f}; "
            f"reached: {b.share_of_skill.value:.0%} of the skill, {b.share_of_ccc.value:.0%} of the CCC"
        )
    if report.undefined():
        lines.append(
            f"{len(report.undefined())} units never vary here and are skipped: {', '.join(report.undefined())}"
        )
    if evidence.left_out:
        lines.append(f"{len(evidence.left_out)} sessions without predictions are left out")
    return lines
