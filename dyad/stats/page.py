"""A survey as one HTML page that needs nothing beside it; pictures are embedded PNG."""

import base64
import html
import io
from typing import Any

import numpy as np

from dyad.clock import FPS
from dyad.stats import shape
from dyad.stats.report import loss_yaml
from dyad.stats.survey import Survey

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
img{max-width:100%}pre{background:#f6f6f6;padding:1rem;overflow:auto;font-size:13px}"""
COLOURS = {"high": "#1f5fa8", "mid": "#6f9bc8", "low": "#c98a1b", "": "#999999"}


def render(survey: Survey, title: str, text: str) -> str:
    """The whole page."""
    import matplotlib as mpl

    mpl.use("Agg")
    parts = [
        f"<pre>{html.escape(text)}</pre>",
        "<h2>How often units are active</h2>" + _rates(survey),
        "<h2>What a movement looks like: frequent units beside rare ones</h2>" + _shapes(survey),
        "<h2>What moves together</h2>" + _together(survey),
    ]
    if survey.lags is not None:
        parts.append("<h2>Listener after speaker</h2>" + _curves(survey) + _matrix(survey))
    parts.append(f"<h2>Weights for a loss</h2><pre>{html.escape(loss_yaml(survey))}</pre>")
    body = "\n".join(parts)
    return (
        "<!doctype html><html lang='en'><meta charset='utf8'><title>Dataset statistics</title>"
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>\n"
    )


def _png(figure: Any) -> str:
    import matplotlib.pyplot as plt

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'>"


def _numbers(units: tuple[str, ...]) -> list[str]:
    return [u.removeprefix("AU") for u in units]


def _rates(survey: Survey) -> str:
    import matplotlib.pyplot as plt

    r, group = survey.rates, {u: name for name, members in survey.groups.items() for u in members}
    figure, axes = plt.subplots(1, 2, figsize=(10, 3))
    x, colours = np.arange(len(r.au_names)), [COLOURS[group.get(u, "")] for u in r.au_names]
    axes[0].bar(x, 100 * np.nan_to_num(r.rate), color=colours)
    axes[0].set_ylabel("% of frames active")
    axes[1].bar(x, np.nan_to_num(r.events_per_minute), color=colours)
    axes[1].set_ylabel("movements per minute")
    for axis in axes:
        axis.set_xticks(x, _numbers(r.au_names))
        axis.set_xlabel("action unit")
    patches = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[k]) for k in survey.groups]
    axes[0].legend(patches, survey.groups, **_above(len(patches)))
    return _png(figure)


def _above(columns: int) -> dict[str, Any]:
    """Where a legend covers nothing: above its picture."""
    return {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns, "frameon": False, "fontsize": 8}


def _shapes(survey: Survey, count: int = 3) -> str:
    """Mean course of the `count` most and least frequent units that move at all, and how long they last."""
    import matplotlib.pyplot as plt

    r = survey.rates
    moving = [int(a) for a in np.argsort(-np.nan_to_num(r.rate)) if survey.shape_counts[a] > 0]
    if not moving:
        return "<p>No movement with annotated surroundings.</p>"
    chosen = [moving[:count], moving[max(count, len(moving) - count) :] or moving[-1:]]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3), sharey=True)
    time_s = np.arange(-shape.BEFORE, shape.AFTER) / FPS
    for axis, title, members in zip(axes, ("most frequent", "rarest"), chosen, strict=True):
        for a in members:
            label = f"{r.au_names[a]} ({survey.shape_counts[a]} movements, half last {r.duration_s[a]:.2f} s)"
            axis.plot(time_s, survey.shapes[a], label=label)
        axis.axvline(0, color="black", lw=0.6)
        axis.set(xlabel="seconds from the first active frame", ylim=(0, 1))
        axis.legend(title=title, **_above(1))
    axes[0].set_ylabel("mean probability")
    return _png(figure)


def _together(survey: Survey) -> str:
    import matplotlib.pyplot as plt

    r = survey.rates
    figure, axis = plt.subplots(figsize=(5.2, 4.4))
    others = np.where(np.eye(len(r.au_names)) > 0, np.nan, r.together)
    top = max(float(np.nanmax(np.abs(others), initial=0)), 0.1)
    shown = axis.imshow(others, vmin=-top, vmax=top, cmap="RdBu_r")
    ticks = np.arange(len(r.au_names))
    axis.set_xticks(ticks, _numbers(r.au_names), fontsize=8)
    axis.set_yticks(ticks, _numbers(r.au_names), fontsize=8)
    figure.colorbar(shown, label="correlation of being active")
    return _png(figure)


def _curves(survey: Survey, count: int = 6) -> str:
    """Correlation at every lag of the strongest cue of the units that follow one most."""
    import matplotlib.pyplot as plt

    found = survey.lags
    assert found is not None
    chosen = found.strongest()[:count]
    if not chosen:
        return "<p>No pair follows another more than chance.</p>"
    figure, axis = plt.subplots(figsize=(10, 3.2))
    time_ms = found.lags_frames * 1000 / FPS
    for lag in chosen:
        curve = found.curves[found.cues.index(lag.cue), found.units.index(lag.unit)]
        (line,) = axis.plot(time_ms, curve, label=f"{lag.cue} → {lag.unit}: {lag.lag_ms:.0f} ms")
        axis.axvspan(lag.low_ms, lag.high_ms, color=line.get_color(), alpha=0.12, lw=0)
    axis.axvline(0, color="black", lw=0.6)
    axis.set(xlabel="listener after speaker, ms", ylabel="correlation of onsets")
    axis.legend(**_above(3))
    return _png(figure)


def _matrix(survey: Survey) -> str:
    """Lags of all real pairs, earlier than the speaker below 0; the others are blank."""
    import matplotlib.pyplot as plt

    found = survey.lags
    assert found is not None
    lag_ms = np.full((len(found.cues), len(found.units)), np.nan)
    for lag in found.real():
        lag_ms[found.cues.index(lag.cue), found.units.index(lag.unit)] = lag.lag_ms
    figure, axis = plt.subplots(figsize=(6.4, 5))
    lowest, highest = (float(f(lag_ms, initial=0)) for f in (np.nanmin, np.nanmax))
    shown = axis.imshow(lag_ms, cmap="viridis", vmin=lowest, vmax=max(highest, lowest + 1), aspect="auto")
    axis.set_xticks(np.arange(len(found.units)), _numbers(found.units), fontsize=8)
    axis.set_yticks(np.arange(len(found.cues)), found.cues, fontsize=8)
    axis.set(xlabel="listener's unit", ylabel="speaker")
    figure.colorbar(shown, label="lag of what is more than chance, ms")
    return _png(figure)
