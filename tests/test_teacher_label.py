"""Labelling: what a label is, that it depends on the media alone, and that it survives kills and bad media."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dyad.events import EventStore
from dyad.layouts import processed
from dyad.soft_labels import SoftLabelStore
from dyad.synthetic.__main__ import main as make_dyads
from teacher import adapter, cluster, labeller
from teacher.backends.transformers import TransformersBackend
from teacher.blend import answers, blend, taper
from teacher.label import Config
from teacher.label import main as label
from teacher.merge import main as merge
from teacher.qwen_omni import OmniTeacher
from teacher.windows import SpeakerMedia
from tests import tiny_teacher
from tests.tiny_teacher import WINDOW

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dyads")
    flags = ["--sessions", "4", "--seconds", "4.1", "--val-share", "0.3", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), *flags]) == 0
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher.write(tmp_path_factory.mktemp("teacher") / "teacher")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> OmniTeacher:
    return adapter.load(folder)[0]


@pytest.fixture(scope="module")
def store(dyads: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "store"
    assert label(_flags(dyads, folder, out)) == 0
    return out


def _flags(dyads: Path, teacher: Path, out: Path) -> list[str]:
    places = ["--teacher", str(teacher), "--dataset", str(dyads), "--out", str(out)]
    return [*places, "--hop-frames", "24", "--threads", "1"]


def _shards(store: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in store.glob("*.safetensors")}


def _speaker(seed: int, frames: int) -> SpeakerMedia:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (frames // 6, 56, 56, 3), np.uint8)
    return SpeakerMedia(pictures, rng.normal(0, 0.1, frames * 16000 // 30).astype(np.float32), frames)


# ---- what a label is ---------------------------------------------------------------------------------------


def test_a_frame_is_the_tapered_mean_of_all_windows_and_anchors_that_answer_for_it() -> None:
    rng = np.random.default_rng(0)
    starts, frames, horizons, length = [0, 4, 9], 8, 3, 16
    prob, logit, variance = (rng.uniform(size=(3, frames, horizons, 2)) for _ in range(3))
    got = blend(starts, prob, logit, variance, length)
    for t in range(length):
        views = [
            (taper(frames)[t - start - h], b, t - start - h, h)
            for b, start in enumerate(starts)
            for h in range(horizons)
            if 0 <= t - start - h < frames
        ]
        w = np.array([v[0] for v in views])
        p, o, s = (np.stack([x[b, i, h] for _, b, i, h in views]) for x in (prob, logit, variance))
        mean = np.average(p, axis=0, weights=w)
        spread = np.sqrt(np.average((p - mean) ** 2 + s, axis=0, weights=w))
        for mine, want in zip(got, (mean, np.average(o, axis=0, weights=w), spread), strict=True):
            np.testing.assert_allclose(mine[t], want, atol=1e-6)


def test_views_that_agree_are_blended_to_themselves_without_any_uncertainty() -> None:
    truth = np.random.default_rng(1).uniform(size=(40, 2))
    starts, frames, horizons = [0, 8, 20], 16, 4
    anchors = np.array(starts)[:, None, None] + np.arange(frames)[:, None] + np.arange(horizons)
    views = truth[np.minimum(anchors, 39)]
    prob, _, spread = blend(starts, views, views, np.zeros_like(views), 36)
    np.testing.assert_allclose(prob, truth[:36], atol=1e-6)
    assert spread.max() < 1e-3


def test_uncertainty_is_never_zero_for_want_of_a_second_window(teacher: OmniTeacher, folder: Path) -> None:
    backend = TransformersBackend.load(folder)
    spread = labeller.label_session(backend, _speaker(2, 60), 60, hop=60, sub_networks=8)[2]
    alone = labeller.label_session(backend, _speaker(2, 60), 60, hop=60, sub_networks=0)[2]
    assert spread.min() > 0
    assert (spread >= alone).all()
    assert spread.mean() > alone.mean()


def test_sub_networks_are_the_read_out_with_channels_left_out(teacher: OmniTeacher) -> None:
    masks, layout = teacher.read_out.sub_networks(64), teacher.layout(WINDOW.frames, CPU)
    assert torch.equal(masks, teacher.read_out.sub_networks(64))
    assert set(masks.unique().tolist()) == {0.0, torch.tensor(1 / 0.9).item()}
    assert 0.04 < (masks == 0).float().mean() < 0.16
    features = torch.randn(1, len(layout.media_at), tiny_teacher.READ_OUT["token_width"])
    with torch.no_grad():
        x = teacher.read_out.trunk(features, layout)
        members = torch.stack([torch.sigmoid(teacher.read_out.heads(x * m)[..., 0]) for m in masks[:4]])
    got = answers(teacher.read_out, layout, features, masks[:4])[2]
    np.testing.assert_allclose(got, members.numpy().var(axis=0), atol=1e-6)


def test_labels_of_two_window_grids_agree_within_tolerance(folder: Path) -> None:
    """The tolerance: 0.02 in the mean, 0.1 at worst. The taper does it: a window's ends hardly count."""
    backend = TransformersBackend.load(folder)
    one, other = (
        labeller.label_session(backend, _speaker(6, 180), 180, hop=hop, sub_networks=0)[0] for hop in (12, 24)
    )
    assert np.abs(one - other).mean() < 0.02
    assert np.abs(one - other).max() < 0.1


def test_labels_do_not_depend_on_how_many_windows_share_a_pass(folder: Path) -> None:
    backends = [TransformersBackend.load(folder, batch=n) for n in (1, 3)]
    one, other = (labeller.label_session(b, _speaker(7, 120), 120, hop=24, sub_networks=4) for b in backends)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_prompt_read_once_gives_what_reading_it_with_every_window_gives(teacher: OmniTeacher) -> None:
    rng = np.random.default_rng(8)
    pictures = rng.integers(0, 256, (2, WINDOW.pictures, 56, 56, 3), np.uint8)
    batch = teacher.pack(pictures, rng.normal(0, 0.1, (2, WINDOW.samples)).astype(np.float32))
    with torch.no_grad():
        whole = teacher.token_features(batch)
        reused = teacher.token_features(batch, teacher.prefix(WINDOW.frames, CPU))
    assert teacher.layout(WINDOW.frames, CPU).prefix > 20
    torch.testing.assert_close(reused, whole, atol=1e-5, rtol=1e-5)


def test_windows_of_another_length_have_a_layout_of_their_own(teacher: OmniTeacher) -> None:
    rng = np.random.default_rng(9)
    pictures = rng.integers(0, 256, (1, 20, 56, 56, 3), np.uint8)
    with torch.no_grad():
        logits = teacher(teacher.pack(pictures, rng.normal(0, 0.1, (1, 64000)).astype(np.float32)))
    assert logits.shape == (1, 120, 9, 17, 2)


# ---- the store ---------------------------------------------------------------------------------------------


def test_every_session_gets_a_label_for_each_of_its_frames(dyads: Path, store: Path) -> None:
    labels = SoftLabelStore.open(store)
    sessions = [s for split in processed.SPLITS for s in processed.load(dyads, split)]
    assert labels.ids() == sorted(s.id for s in sessions)
    for session in sessions:
        soft = labels.read(session.id)
        assert soft.prob.shape == (session.n_frames, 17)
        assert (soft.uncertainty > 0).all()


def test_a_run_killed_in_the_middle_goes_on_to_the_same_bytes(
    dyads: Path, folder: Path, store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    command = [sys.executable, "-m", "teacher.label", *_flags(dyads, folder, out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not _shards(out) and run.poll() is None:
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    assert 1 <= len(_shards(out)) < 4
    assert label(_flags(dyads, folder, out)) == 0
    assert _shards(out) == _shards(store)


def test_a_damaged_shard_is_named_and_made_again_alone(
    dyads: Path, folder: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(store, tmp_path / "store")
    shards = sorted((tmp_path / "store").glob("*.safetensors"))
    shards[1].write_bytes(shards[1].read_bytes()[:100])
    (tmp_path / "store" / f"{shards[0].name}.part").write_bytes(b"half")
    times = [p.stat().st_mtime_ns for p in shards]
    assert label(_flags(dyads, folder, tmp_path / "store")) == 0
    assert _shards(tmp_path / "store") == _shards(store)
    assert [p.stat().st_mtime_ns == t for p, t in zip(shards, times, strict=True)] == [True, False, True, True]
    told = capsys.readouterr().out
    assert f"labelling {shards[1].stem} again" in told
    assert "1 sessions labelled, 3 already there, 0 left out" in told


def test_one_session_labelled_again_leaves_the_damaged_ones_of_others_alone_and_says_so(
    dyads: Path, folder: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(store, tmp_path / "store")
    first, second, *_ = sorted((tmp_path / "store").glob("*.safetensors"))
    second.write_bytes(b"half")
    assert label([*_flags(dyads, folder, tmp_path / "store"), "--only", first.stem, "--split", "all"]) == 0
    assert second.read_bytes() == b"half"
    assert f"damaged, and not asked for now: {second}" in capsys.readouterr().out
    assert first.read_bytes() == (store / first.name).read_bytes()


def test_a_session_that_was_prepared_anew_with_another_length_is_labelled_again(
    dyads: Path, folder: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(store, tmp_path / "store")
    labels = SoftLabelStore.open(tmp_path / "store")
    session_id, soft = labels.ids()[0], labels.read(labels.ids()[0])
    labels.write(session_id, soft.prob[:-10], soft.act_logit[:-10], soft.uncertainty[:-10])
    assert label(_flags(dyads, folder, tmp_path / "store")) == 0
    told = capsys.readouterr().out
    assert f"labelling {session_id} again: {len(soft.prob) - 10} frames are labelled, but the session has" in told
    assert _shards(tmp_path / "store") == _shards(store)


def test_a_cache_that_cannot_be_kept_costs_time_and_no_session(
    dyads: Path, folder: Path, store: Path, tmp_path: Path
) -> None:
    root = tmp_path / "dyads"
    shutil.copytree(dyads, root, ignore=shutil.ignore_patterns("cache"))
    (root / "cache").write_bytes(b"a file where a folder should be")
    assert label([*_flags(root, folder, tmp_path / "store"), "--split", "val"]) == 0
    assert _shards(tmp_path / "store").items() <= _shards(store).items()


@pytest.mark.parametrize("damage", ["half the weights", "no weights", "a contract without its window"])
def test_a_damaged_teacher_is_told_in_one_sentence(folder: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(folder, tmp_path / "teacher")
    weights, contract = (tmp_path / "teacher" / n for n in ("adapter/adapter_model.safetensors", "teacher.json"))
    if damage == "half the weights":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "no weights":
        weights.unlink()
    else:
        content = json.loads(contract.read_text())
        del content["window"]
        contract.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="tune again") as caught:
        adapter.load(tmp_path / "teacher")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("flag", "value"), [("--hop-frames", "36"), ("--sub-networks", "3")])
def test_a_store_is_not_gone_on_with_by_another_recipe(
    dyads: Path, folder: Path, store: Path, flag: str, value: str
) -> None:
    with pytest.raises(ValueError, match="recipe"):
        label([*_flags(dyads, folder, store), flag, value])


def test_a_session_with_broken_media_is_named_and_the_others_are_labelled(
    dyads: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "dyads"
    shutil.copytree(dyads, root, ignore=shutil.ignore_patterns("cache"))
    victim = processed.load(root, "train")[0]
    victim.speaker_video_path.write_bytes(b"not a video")
    assert label(_flags(root, folder, tmp_path / "store")) == 3
    assert victim.id not in SoftLabelStore.open(tmp_path / "store")
    assert len(SoftLabelStore.open(tmp_path / "store").ids()) == 3
    assert f"left out {victim.id}" in capsys.readouterr().out


def test_a_listener_without_labels_is_labelled_all_the_same(dyads: Path, folder: Path, tmp_path: Path) -> None:
    root, bare = tmp_path / "dyads", []
    for session in processed.load(dyads, "val"):  # the paths stay absolute: the media lie in the other folder
        unknown = np.full_like(session.prob, np.nan)
        bare.append(replace(session, prob=unknown, act=unknown))
    processed.write(root, "train", bare)
    assert label([*_flags(root, folder, tmp_path / "store"), "--split", "train"]) == 0
    assert SoftLabelStore.open(tmp_path / "store").ids() == [s.id for s in bare]


def test_ray_actors_write_the_very_bytes_of_a_single_process_and_name_what_fails(
    dyads: Path, folder: Path, store: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    root, out = tmp_path / "dyads", tmp_path / "store"
    shutil.copytree(dyads, root, ignore=shutil.ignore_patterns("cache"))
    victim = processed.load(root, "train")[0]
    victim.speaker_audio_path.write_bytes(b"not a sound")
    command = [sys.executable, "-m", "teacher.label", *_flags(root, folder, out), "--engine", "ray"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "3 sessions labelled, 0 already there, 1 left out" in done.stdout
    assert f"left out {victim.id}" in done.stdout
    assert _shards(out) == {name: data for name, data in _shards(store).items() if name != f"{victim.id}.safetensors"}


def test_a_dry_run_tells_the_cost_and_writes_nothing(
    dyads: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label([*_flags(dyads, folder, tmp_path / "store"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("tokens", "TFLOP", "H200", "labels"))
    assert not (tmp_path / "store").exists()


# ---- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("au_names", ["AU1", "AU99"], r"other action units \(.*AU99"),
        ("fps", 25, r"another rate \(25 Hz\)"),
        ("base_hash", "0", "another base"),
    ],
)
def test_a_teacher_made_for_something_else_is_refused_by_name(
    folder: Path, tmp_path: Path, key: str, value: object, told: str
) -> None:
    shutil.copytree(folder, tmp_path / "teacher")
    contract = json.loads((tmp_path / "teacher" / "teacher.json").read_text())
    (tmp_path / "teacher" / "teacher.json").write_text(json.dumps(contract | {key: value}))
    with pytest.raises(ValueError, match=told):
        adapter.load(tmp_path / "teacher")


def test_a_base_of_the_same_shape_but_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    from teacher import tiny

    with pytest.raises(ValueError, match="another base"):
        adapter.load(folder, base=str(tiny.build(tmp_path / "other", seed=1)))


def test_a_base_that_moved_is_found_where_the_user_says(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "base", tmp_path / "moved")
    assert adapter.load(folder, base=str(tmp_path / "moved"))[1]["model"] == "tiny"


def test_damaged_heads_are_named_with_a_remedy(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "teacher")
    (tmp_path / "teacher" / "heads.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"heads\.safetensors.*tune again"):
        adapter.load(tmp_path / "teacher")


def test_ray_actors_that_fit_on_no_machine_are_refused_not_waited_for(
    dyads: Path, folder: Path, tmp_path: Path
) -> None:
    class Small:
        @staticmethod
        def nodes() -> list[dict]:
            return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    cluster._require_room(Small, 2)
    with pytest.raises(ValueError, match="--threads 64: no machine"):
        cluster._require_room(Small, 64)


def test_what_cannot_be_labelled_is_said_before_anything_heavy_is_imported(
    dyads: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"teacher\.tune"):
        label(_flags(dyads, tmp_path, tmp_path / "store"))
    with pytest.raises(ValueError, match="no_such_session"):
        label([*_flags(dyads, folder, tmp_path / "store"), "--only", "no_such_session"])
    with pytest.raises(ValueError, match="hop_frames"):
        Config(teacher=folder, dataset=dyads, out=tmp_path, hop_frames=0)


# ---- text beside numbers -----------------------------------------------------------------------------------


def test_sessions_are_described_beside_their_labels_and_a_damaged_description_is_made_again(
    dyads: Path, folder: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "dyads", tmp_path / "store"
    shutil.copytree(dyads, root, ignore=shutil.ignore_patterns("cache"))
    victim, *others = processed.load(root, "train")
    victim.speaker_video_path.write_bytes(b"not a video")
    flags = [*_flags(root, folder, out), "--split", "train", "--describe"]
    assert label(flags) == 3
    events = EventStore.open(out)
    assert events.ids() == sorted(s.id for s in others)
    for session in others:
        said = events.read(session.id)
        assert (said[0].start_frame, said[-1].end_frame) == (0, session.n_frames)
        assert all(e.emotion in events.emotions for e in said)
    first, second = (events.path(s.id) for s in others[:2])
    before = [first.read_bytes(), second.read_bytes()]
    first.write_bytes(before[0][:20])
    capsys.readouterr()
    assert label(flags) == 3
    assert [first.read_bytes(), second.read_bytes()] == before
    told = capsys.readouterr().out
    assert f"describing {others[0].id} again" in told
    assert "1 sessions described, 1 already there, 1 left out" in told
    assert _shards(out).items() <= _shards(store).items()


def test_a_merged_teacher_is_not_asked_for_language_that_its_adapter_changed(
    dyads: Path, folder: Path, tmp_path: Path
) -> None:
    assert merge(["--teacher", str(folder), "--out", str(tmp_path / "merged")]) == 0
    with pytest.raises(ValueError, match="describe with the folder that"):
        label([*_flags(dyads, tmp_path / "merged", tmp_path / "store"), "--describe"])
    assert not (tmp_path / "store").exists()


def test_a_merged_teacher_labels_as_the_unmerged_one(dyads: Path, folder: Path, store: Path, tmp_path: Path) -> None:
    assert merge(["--teacher", str(folder), "--out", str(tmp_path / "merged"), "--dtype", "float32"]) == 0
    assert label([*_flags(dyads, tmp_path / "merged", tmp_path / "store"), "--split", "val"]) == 0
    merged, plain = SoftLabelStore.open(tmp_path / "store"), SoftLabelStore.open(store)
    for session_id in merged.ids():
        one, other = merged.read(session_id), plain.read(session_id)
        np.testing.assert_allclose(one.prob, other.prob, atol=1e-5)
        np.testing.assert_allclose(one.act_logit, other.act_logit, atol=1e-4)
