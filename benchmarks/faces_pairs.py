"""Two talking people side by side, the sound of one of them: who is watched, and does everybody keep their number?

Every ordered pair of clips, faces 150 px wide, with the real voice of the one and the other shown to and fro; both
mouths move. What each clue of who speaks counts is chosen on some of the clips and scored on others
(`benchmarks.faces_weights`).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.faces_weights import GRID, Tape, again, held_out, right_share
from deploy.faces.speaker import Weights
from deploy.faces.watcher import Watched, Watcher
from dyad import media
from dyad.clock import FPS
from student.detect import Picture
from student.face import FaceTracker
from student.frontend import audio_window
from student.spec import StudentSpec

SPEC = StudentSpec()
ENDINGS = {".avi", ".mkv", ".mov", ".mp4", ".mpg", ".webm"}
MOST_S = 6.0
SWAP_AFTER = 75
"""Frames after which the two change sides, to see whether they keep their numbers."""
HALF_PX, FACE_PX = (320, 400), 150


@dataclass(frozen=True)
class Clip:
    """One person, cut to half of a scene, and their voice."""

    pictures: list[Picture]
    sound: NDArray[np.float32]


def clips_of(folder: Path) -> list[Path]:
    """Videos of a folder, by name; raises ValueError when there are fewer than four."""
    files = sorted(f for f in folder.glob("*") if f.suffix in ENDINGS)
    if len(files) < 4:
        raise ValueError(f"{folder}: wanted four videos of talking people or more, found {len(files)}; give --clips")
    return files


def load(file: Path, most_s: float) -> tuple[list[Picture], NDArray[np.float32]]:
    """Pictures at 30 Hz and sound of a clip."""
    return [p for _, p in islice(media.iter_grid_frames(file), round(most_s * FPS))], media.read_audio(file)


def cut(file: Path) -> Clip:
    """The face of a clip at a fixed size in half of a scene; raises ValueError when there is none."""
    pictures, sound = load(file, MOST_S)
    tracker = FaceTracker()
    box = next((seen.box for seen in map(tracker.step, pictures) if seen.box), None)
    if box is None:
        raise ValueError(f"{file}: no face is found in it; leave it out")
    scale = FACE_PX / (box[2] - box[0])
    x, y = scale * (box[0] + box[2]) / 2, scale * (box[1] + box[3]) / 2
    move = np.array([[scale, 0, HALF_PX[0] / 2 - x], [0, scale, HALF_PX[1] / 2 - y]])
    soft = (p if scale >= 1 else cv2.GaussianBlur(p, (0, 0), 0.4 / scale) for p in pictures)
    border = cv2.BORDER_REPLICATE
    return Clip([np.asarray(cv2.warpAffine(p, move, HALF_PX, borderMode=border), np.uint8) for p in soft], sound)


def to_and_fro(pictures: Sequence[Picture]) -> Iterator[Picture]:
    """Forwards, backwards, and so on without end."""
    return itertools.cycle([*pictures, *pictures[-2:0:-1]])


def scenes(talker: Clip, other: Clip, *, talker_right: bool) -> Iterator[Picture]:
    """Side by side, for as long as the talker's clip lasts."""
    for one, two in zip(talker.pictures, to_and_fro(other.pictures), strict=False):
        yield np.concatenate([two, one] if talker_right else [one, two], axis=1)


def sides(seen: Watched) -> dict[int, int]:
    """Number → 0 for the left half of the scene, 1 for the right; the larger faces last."""
    people = sorted(seen.people, key=lambda p: p.box[2] - p.box[0])
    return {p.number: int((p.box[0] + p.box[2]) / 2 > HALF_PX[0]) for p in people}


def watch(talker: Clip, other: Clip, *, talker_right: bool) -> Tape:
    """The whole face stage over one pair."""
    watcher, tape = Watcher(), Tape([], [], [], [])
    for t, scene in enumerate(scenes(talker, other, talker_right=talker_right)):
        seen = watcher.step(scene, audio_window(talker.sound, t, SPEC))
        tape.clues.append(watcher.choice.clues)
        tape.watched.append(seen.person)
        where = {n: int((side == 1) != talker_right) for n, side in sides(seen).items()}
        tape.sides.append(where)
        tape.owners.append({side: n for n, side in where.items()})
    return tape


def renumbered(tape: Tape) -> int:
    """How often the number of whoever is on a side changed."""
    changes = 0
    for side in (0, 1):
        numbers = [owners[side] for owners in tape.owners if side in owners]
        changes += sum(a != b for a, b in pairwise(numbers))
    return changes


def kept_over_swap(one: Clip, other: Clip) -> str:
    """Both change sides from one picture to the next: do their numbers go with them?"""
    watcher, silence = Watcher(), np.zeros(SPEC.audio_window_samples, np.float32)
    before: dict[int, int] = {}
    after: dict[int, int] = {}
    stream = zip(to_and_fro(one.pictures), to_and_fro(other.pictures), strict=False)
    for t, (left, right) in enumerate(islice(stream, 2 * SWAP_AFTER)):
        seen = watcher.step(np.concatenate([left, right] if t < SWAP_AFTER else [right, left], axis=1), silence)
        after = {side: n for n, side in sides(seen).items()}
        before = after if t == SWAP_AFTER - 1 else before
    if len(before) != 2 or len(after) != 2:
        return "one of them not seen"
    if set(after.values()) != set(before.values()):
        return "a new number"
    return "kept" if after[0] == before[1] else "exchanged"


def measure(files: Sequence[Path]) -> dict[str, Any]:
    """All pairs: the choice of the speaker, held out, and identities."""
    clips = {file.name: cut(file) for file in files}
    names = list(clips)
    pairs = list(itertools.permutations(names, 2))
    tapes = [watch(clips[a], clips[b], talker_right=bool(k % 2)) for k, (a, b) in enumerate(pairs)]
    live = np.array([right_share(tape, tape.watched) for tape in tapes])
    shares = np.array([[right_share(tape, again(tape, w)) for tape in tapes] for w in GRID])
    swaps = [kept_over_swap(clips[a], clips[b]) for a, b in itertools.combinations(names, 2)]
    ends = [tape.sides[-1].get(tape.watched[-1] or 0) == 0 for tape in tapes]
    found: dict[str, Any] = {
        "pairs": len(pairs),
        "talker_watched_share": round(float(live.mean()), 4),
        "talker_watched_at_the_end": round(float(np.mean(ends)), 4),
        "recorded_and_weighed_again": round(float(shares[GRID.index(Weights())].mean()), 4),
        "turns": sum(sum(a != b for a, b in pairwise(w for w in t.watched if w)) for t in tapes),
        "held_out": held_out(shares, pairs, names),
        "numbers_changed": sum(renumbered(tape) for tape in tapes),
        "frames": sum(len(tape.sides) for tape in tapes),
        "swaps": {kind: swaps.count(kind) for kind in sorted(set(swaps))},
        "by_talker": {
            n: round(float(np.mean([s for s, p in zip(live, pairs, strict=True) if p[0] == n])), 3) for n in names
        },
    }
    print_pairs(found)
    return found


def print_pairs(found: dict[str, Any]) -> None:
    """A few lines."""
    print(
        f"{found['pairs']} pairs of talking people: the one whose voice it is is watched in "
        f"{100 * found['talker_watched_share']:.1f} % of the time after 1.5 s, at the end in "
        f"{100 * found['talker_watched_at_the_end']:.1f} % of the pairs"
    )
    for what, row in found["held_out"].items():
        print(
            f"held out, of {row['candidates']} {what}: chosen on one half of the clips, scored on the other "
            f"{100 * row['other_half']:.1f} % (on their own half {100 * row['own_half']:.1f} %); chosen without the "
            f"two clips of a pair {100 * row['without_the_two']:.1f} %"
        )
    print(f"numbers changed {found['numbers_changed']} times in {found['frames']} frames; swapped: {found['swaps']}")
