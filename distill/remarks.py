"""What the tables do not say: differences, the bound, what is left out, and how far intervals can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.tables import ACTIVE, INTENSITY, interval

if TYPE_CHECKING:
    from distill.report import Report

FEW = 40
"""Recordings below which intervals of means over rare units undercover: benchmarks/intervals.py."""
TOLD = ("macro_ccc", "macro_skill", "macro_f1", "macro_auprc", "macro_event_f1")
"""Differences that the remarks print; report.json holds all."""


def remarks(report: Report) -> list[str]:
    """What the tables do not say."""
    lines: list[str] = []
    if "mimicry" not in report.main:
        lines.append("mimicry is left out: the speakers' own action units are not known (speaker_au/<session>.npz)")
    for rival, scores in report.differences().items():
        titles = INTENSITY | ACTIVE
        parts = [f"{titles[n]} {scores[n].value:+.3f}{interval(scores[n], sign='+')}" for n in TOLD if n in scores]
        lines.append(f"model minus {rival}: " + ", ".join(parts))
    if report.bound is not None:
        b = report.bound
        lines.append(
            f"attainable by any causal predictor ({b.sessions} sessions): skill {b.skill:.3f}, CCC {b.ccc:.3f}; "
            f"reached: {b.share_of_skill.value:.0%} of the skill, {b.share_of_ccc.value:.0%} of the CCC"
        )
    if report.unknown():
        lines.append(f"units that nobody annotated here are left out: {', '.join(report.unknown())}")
    if still := [u for u in report.undefined() if u not in report.unknown()]:
        lines.append(f"units that never vary here are skipped: {', '.join(still)}")
    if report.over.independent < len(report.evidence.cases):
        lines.append(
            f"intervals draw {report.over.independent} recordings, not {len(report.evidence.cases)} sessions: those of "
            "one recording resemble each other"
        )
    if 1 < report.over.independent < FEW:
        lines.append(
            f"intervals of fewer than {FEW} recordings hold the truth less often than they say (docs/metrics.md)"
        )
    if report.evidence.left_out:
        lines.append(f"{len(report.evidence.left_out)} sessions without predictions are left out")
    return lines
