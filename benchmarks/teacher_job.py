"""What `benchmarks/teacher.py` has labelled: a session of the packaged clip, and what a window of it costs each way."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from benchmarks.teacher_stages import stages
from benchmarks.teacher_ways import Labels, Plain, worst_difference
from teacher import cost, plan
from teacher.window_spec import WindowSpec

if TYPE_CHECKING:
    from benchmarks.teacher import Config


def read_media(path: Path, spec: WindowSpec, seconds: float) -> tuple[Any, float]:
    """A clip over and over, and the seconds that decoding one second of it takes."""
    from dyad.session import Clip
    from teacher.windows import SpeakerMedia, read_speaker

    start = time.perf_counter()
    clip = Clip(id="clip", speaker_video_path=path, speaker_audio_path=path, n_frames=0)
    once = read_speaker(cast(Any, clip), spec)
    took = (time.perf_counter() - start) / (once.n_frames / 30)
    n_frames = max(round(seconds * 30), 1)
    pictures = np.resize(once.pictures, (-(-n_frames * spec.video_fps // 30), *once.pictures.shape[1:]))
    return SpeakerMedia(pictures, np.resize(once.sound, n_frames * 16000 // 30), n_frames), took


class Job:
    """A session, the model, and what a window of it costs."""

    def __init__(self, config: Config, model: Any) -> None:
        from teacher.windows import starts

        self.config, self.model, self.spec = config, model, model.spec
        self.device = model.read_out.project.weight.device
        self.speaker, _ = read_media(config.clip, self.spec, config.seconds)
        self.n_frames = self.speaker.n_frames
        self.at = starts(self.n_frames, self.spec, config.hop_frames)
        self.numbers = json.loads(model.core.config.to_json_string(use_diff=False))
        layout = model.layout(self.spec.frames, self.device)
        self.tokens = cost.Tokens(
            prompt=layout.prefix,
            video=len(layout.video_rows),
            audio=len(layout.audio_rows),
            closing=len(layout.ids) - layout.prefix - len(layout.media_at),
        )

    def label(self, way: Any) -> Labels:
        """The session's labels, as the labeller makes them."""
        from teacher.labeller import label_session

        hop, members = self.config.hop_frames, self.config.sub_networks
        return label_session(way, self.speaker, self.n_frames, hop=hop, sub_networks=members)

    def flops(self, way: Any) -> float:
        """What a way computes for a window; the products of an adapter that is not merged are left out.

        The plain one takes all anew, vLLM the prompt once, ours the prompt once and no picture of a batch twice.
        """
        from teacher.backends.transformers import TransformersBackend

        plain, together = isinstance(way, Plain), way.batch if isinstance(way, TransformersBackend) else 1
        grids = plan.shared_grids(self.at, self.spec, together) / len(self.at)
        ways = {"keeps_prompt": not plain, "head": plain, "sub_networks": self.config.sub_networks, "grids": grids}
        return cost.flops_of(self.numbers, self.spec, self.tokens, read_out_sizes(self.model.read_out), **ways).total

    def row(self, way: Any, seconds: list[float], plain: list[float], peak: float) -> dict[str, float]:
        """Figures of a way that took `seconds` in turns with the plain one; the ratio is taken turn by turn."""
        median, count, flops = statistics.median(seconds), len(self.at), self.flops(way)
        return {
            "seconds": round(median, 4),
            "times_real_time": round(self.n_frames / 30 / median, 2),
            "windows_per_s": round(count / median, 3),
            "media_tokens_per_s": round(count * self.tokens.media / median),
            "gflop_per_window": round(flops / 1e9, 3),
            "gflop_per_s": round(count * flops / median / 1e9, 3),
            "mfu": round(count * flops / median / peak, 4),
            "vs_plain": round(statistics.median(p / s for p, s in zip(plain, seconds, strict=True)), 3),
        }

    def stages(self, way: Any) -> dict[str, float]:
        """Milliseconds per window by stage."""
        found = stages(way, lambda: self.label(way), self.device, self.config.rounds)
        return {name: round(1e3 * seconds / len(self.at), 3) for name, seconds in found.items()}

    def product_sizes(self) -> list[tuple[int, int, int]]:
        """The model's own matrix products at the largest batch: rows, inner, columns."""
        text, vision, batch = self.numbers["text_config"], self.numbers["vision_config"], max(self.config.batches)
        patches = batch * self.tokens.video * vision["spatial_merge_size"] ** 2
        rows, width, inner = (
            batch * (self.tokens.total - self.tokens.prompt),
            text["hidden_size"],
            text["intermediate_size"],
        )
        pairs = [(rows, width, inner), (rows, inner, width), (rows, width, width)]
        return [*pairs, (patches, vision["hidden_size"], vision["intermediate_size"])]


def read_out_sizes(read_out: Any) -> dict[str, int]:
    """Sizes of a read-out as its contract writes them."""
    return {
        "units": read_out.units,
        "horizons": read_out.horizons,
        "token_width": read_out.tokens.video.out_features,
        "width": read_out.project.out_features,
        "span": read_out.temporal.kernel_size[0],
    }


def check(job: Job, ways: dict[str, Any]) -> dict[str, float]:
    """How far the labels of each way lie from the plain way's; raises ValueError where they are not the same labels."""
    limit = 1e-3 if job.device.type == "cpu" else 0.1
    wanted = job.label(ways["plain"])
    found = {name: worst_difference(wanted, job.label(way)) for name, way in ways.items()}
    for name, gap in found.items():
        if not gap <= limit:
            raise ValueError(f"{name}: its labels lie {gap:.3g} from the plain way's, at most {limit:g} is rounding")
    return {name: float(f"{gap:.2g}") for name, gap in found.items()}
