"""What training takes in besides annotated dyads: extra speakers, another run's eyes, a teacher's labels, thin ones."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from distill import trainer as training
from distill.eyes import eyes_hash, look, take_eyes
from distill.objective import objective
from distill.train import Config, main
from distill.trainer import Trainer
from dyad import config as configuration
from dyad.layouts import processed
from dyad.session import Session
from dyad.soft_labels import SoftLabelStore
from dyad.synthetic.__main__ import main as make_dyads
from student import calibration, checkpoint, front_cache
from student.model import Student
from student.spec import StudentSpec

TINY = StudentSpec(crop_px=32, d_model=32, layers=1, heads=2, window_frames=16, ffn=32, visual_channels=8)
RUN = {"run": {}, "teacher_hash": "t"}


def make(root: Path, seed: int, sessions: int = 3) -> Path:
    """Synthetic dyads of three seconds, one of them for validation."""
    flags = ["--sessions", str(sessions), "--seconds", "3", "--val-share", "0.3", "--voice", "formant"]
    assert make_dyads(["--out", str(root), *flags, "--workers", "1", "--seed", str(seed)]) == 0
    return root


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("dyads"), 0)


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Extra speakers: two sessions to train on."""
    return make(tmp_path_factory.mktemp("speakers"), 1)


@pytest.fixture(scope="module")
def base(dyads: Path) -> Config:
    return Config(
        dataset=dyads, out=Path("set by each test"), eyes_steps=0, steps=2, qat_steps=0, validate_every=100, batch=2,
        clip_frames=24, threads=1, workers=1, device="cpu",
    )  # fmt: skip


def label(root: Path, folder: Path, ids: list[str]) -> Path:
    """A teacher's labels of some sessions of a dataset."""
    store = SoftLabelStore.create(folder, au_names=TINY.au_names, **RUN)
    for session in processed.load(root, "train"):
        if session.id in ids:
            rng = np.random.default_rng(len(session.id))
            prob = rng.uniform(0.1, 0.9, session.prob.shape).astype(np.float32)
            store.write(session.id, prob, np.log(prob / (1 - prob)), np.full_like(prob, 0.05))
    return folder


def ids_of(root: Path) -> list[str]:
    return [s.id for s in processed.load(root, "train")]


def copy_of(root: Path, target: Path, change: Callable[[Session], Session]) -> Path:
    """A copy of a dataset whose training sessions are changed; decoded media come along."""
    shutil.copytree(root, target, copy_function=shutil.copy2)
    sessions = [change(s) for s in processed.load(target, "train")]
    processed.write(target, "train", sessions)
    return target


def train(config: Config) -> Trainer:
    trainer = Trainer(config, TINY)
    trainer.run()
    return trainer


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: w.clone() for name, w in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- extra speakers -------------------------------------------------------------------------------------------


def test_extra_speakers_need_their_labels_and_the_other_way_round(
    dyads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in ("--extra", "--extra-labels"):
        with pytest.raises(SystemExit) as end:
            main(["--dataset", str(dyads), "--out", str(tmp_path / "run"), flag, str(dyads)])
        assert end.value.code == 2
        assert "extra and extra_labels go together" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_whatever_was_annotated_of_extra_listeners_changes_nothing(
    base: Config, speakers: Path, tmp_path: Path
) -> None:
    def turn_round(session: Session) -> Session:
        return replace(session, prob=1 - session.prob, act=1 - session.act)

    labels = label(speakers, tmp_path / "labels", ids_of(speakers))
    garbage = copy_of(speakers, tmp_path / "garbage", turn_round)
    ends, means = [], []
    for name, root in (("honest", speakers), ("garbage", garbage)):
        trainer = train(replace(base, out=tmp_path / name, extra=root, extra_labels=labels))
        assert [s.id for s in trainer.data.train][2:] == ids_of(speakers)
        ends.append(weights_of(trainer.averaged))
        means.append([trainer.data.mean, trainer.data.rate])
    assert equal(*ends)
    np.testing.assert_array_equal(*means)
    plain = train(replace(base, out=tmp_path / "plain"))
    np.testing.assert_array_equal(plain.data.mean, means[0][0], "base rates are those of the annotated listeners")
    assert not equal(weights_of(plain.averaged), ends[0]), "extra speakers must teach something"


def test_a_clip_of_an_extra_speaker_has_a_soft_loss_and_no_hard_one(
    base: Config, speakers: Path, tmp_path: Path
) -> None:
    labels = label(speakers, tmp_path / "labels", ids_of(speakers))
    trainer = Trainer(replace(base, out=tmp_path / "run", extra=speakers, extra_labels=labels), TINY)
    places = iter(([(2, 0), (3, 5)], [(0, 0), (1, 5)]))
    trainer.data.sampler.draw = lambda *_: next(places)  # pyright: ignore[reportAttributeAccessIssue]
    extra, annotated = (trainer._train_step(trainer.data.batch(0)) for _ in range(2))
    assert (extra["hard"], extra["ccc"]) == (0, 0)
    assert extra["soft"] > 0
    assert annotated["hard"] > 0
    assert annotated["soft"] == 0


def test_an_extra_speaker_whom_the_teacher_did_not_label_is_named_and_left_out(
    base: Config, speakers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ids_of(speakers)
    labels = label(speakers, tmp_path / "labels", [second])
    trainer = Trainer(replace(base, out=tmp_path / "run", extra=speakers, extra_labels=labels), TINY)
    said = capsys.readouterr().out
    assert f"left out {first}: the teacher did not label it" in said
    assert f"extra speakers ({speakers}): 1 sessions, 1 with soft labels, 1 left out" in said
    assert [s.id for s in trainer.data.train][2:] == [second]
    none = label(speakers, tmp_path / "none", [])
    with pytest.raises(ValueError, match="no session can be learned from"):
        Trainer(replace(base, out=tmp_path / "other", extra=speakers, extra_labels=none), TINY)


def test_soft_labels_that_the_quality_gate_dropped_are_named_and_not_learned_from(
    base: Config, dyads: Path, speakers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = ids_of(dyads), ids_of(speakers)
    labels, extra = label(dyads, tmp_path / "labels", ours), label(speakers, tmp_path / "extra", theirs)
    for folder, name in ((labels, ours[0]), (extra, theirs[0])):
        SoftLabelStore.open(folder).write_quality({"drop": {name: ["collapsed: hardly moves"]}})
    settings = {"labels": labels, "extra": speakers, "extra_labels": extra}
    trainer = Trainer(replace(base, out=tmp_path / "run", **settings), TINY)
    said = capsys.readouterr().out
    assert f"soft labels of {ours[0]} not used: collapsed: hardly moves" in said
    assert f"left out {theirs[0]}: its soft labels are collapsed: hardly moves" in said
    assert [(s.id, s.soft is not None) for s in trainer.data.train] == [
        (ours[0], False), (ours[1], True), (theirs[1], True)
    ]  # fmt: skip


def test_a_session_that_is_extra_and_annotated_at_once_is_refused_by_name(
    base: Config, dyads: Path, tmp_path: Path
) -> None:
    labels = label(dyads, tmp_path / "labels", ids_of(dyads))
    with pytest.raises(ValueError, match=rf"holds {ids_of(dyads)[0]}, .* too; extra speakers must be others"):
        Trainer(replace(base, out=tmp_path / "run", extra=dyads, extra_labels=labels), TINY)


# ---- eyes of another run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eyes(base: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Float checkpoint of a run that opened its eyes."""
    out = tmp_path_factory.mktemp("eyes")
    Trainer(replace(base, out=out, eyes_steps=1, seed=5), TINY).ship()
    return out / "checkpoint"


def test_eyes_are_taken_over_bit_for_bit_and_stay_so_while_frozen(base: Config, eyes: Path, tmp_path: Path) -> None:
    want = checkpoint.load(eyes).vision.state_dict()
    trainer = Trainer(replace(base, out=tmp_path, eyes=eyes, freeze_eyes=True, eyes_steps=3), TINY)
    assert equal(trainer.model.vision.state_dict(), want)
    before = weights_of(trainer.averaged.heads)
    trainer.run()
    trainer.ship()
    assert equal(checkpoint.load(tmp_path / "checkpoint").vision.state_dict(), want)
    assert not equal(weights_of(trainer.averaged.heads), before)


def test_eyes_that_are_not_frozen_go_on_learning(base: Config, eyes: Path, tmp_path: Path) -> None:
    trainer = train(replace(base, out=tmp_path, eyes=eyes))
    assert not equal(trainer.averaged.vision.state_dict(), checkpoint.load(eyes).vision.state_dict())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"backbone": "mobilenetv4_conv_small_035"}, "backbone"),
        ({"crop_px": 64}, "crop_px"),
        ({"d_model": 16}, "d_model"),
    ],
)
def test_eyes_of_another_student_are_refused_by_what_differs(
    changes: dict[str, int | str], named: str, eyes: Path
) -> None:
    model = Student(TINY.replace(**changes))
    before = weights_of(model.vision)
    with pytest.raises(
        ValueError, match=rf"checkpoint: its eyes differ in {named}; take those of a student of the same"
    ):
        take_eyes(model, eyes)
    assert equal(weights_of(model.vision), before)


def test_eyes_of_a_quantised_student_are_refused_with_the_remedy(eyes: Path, tmp_path: Path) -> None:
    maker = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (1, 4, 32, 32, 3), dtype=torch.uint8, generator=maker)
    model = calibration.prepare(checkpoint.load(eyes), [(pictures, torch.zeros(1, 4, 800), torch.ones(1, 4, 2))])
    checkpoint.save(tmp_path / "quantised", model, {})
    with pytest.raises(
        ValueError, match=r"quantised: is quantised; take the eyes of its float parent, the folder 'float'"
    ):
        take_eyes(Student(TINY), tmp_path / "quantised")


def test_a_folder_without_eyes_is_refused_before_the_first_step(base: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no checkpoint there"):
        Trainer(replace(base, out=tmp_path / "run", eyes=tmp_path / "nowhere"), TINY)


def test_frozen_features_are_kept_beside_the_decoded_media_and_read_again(
    base: Config, dyads: Path, eyes: Path, tmp_path: Path
) -> None:
    root = tmp_path / "dyads"
    shutil.copytree(dyads, root, copy_function=shutil.copy2)
    config = replace(base, dataset=root, eyes=eyes, freeze_eyes=True)
    trainer = Trainer(replace(config, out=tmp_path / "first"), TINY)
    session = trainer.data.train[0]
    kept = front_cache.folder_of(root, TINY) / session.id / f"seen-{eyes_hash(trainer.model.vision)}.npy"
    fresh = look(trainer.model, session)
    np.testing.assert_array_equal(np.load(kept), fresh)
    with torch.no_grad():
        one = trainer.model.visual_features(torch.from_numpy(np.array(session.front.frames[7]))[None, None])[0, 0]
    np.testing.assert_allclose(fresh[7], one.numpy(), atol=1e-5)
    np.save(kept, fresh + 1)  # a mark: only who reads the file sees it
    again = Trainer(replace(config, out=tmp_path / "again"), TINY)
    np.testing.assert_array_equal(again.data.seen[0], fresh + 1)
    clip = again.data.batch(0)
    assert clip.seen.shape == (2, 24, TINY.d_model)
    assert clip.frame_u8.numel() == 0


def test_other_eyes_see_for_themselves(base: Config, dyads: Path, eyes: Path, tmp_path: Path) -> None:
    Trainer(replace(base, out=tmp_path / "others", eyes_steps=1, seed=6), TINY).ship()
    seen = []
    for name, folder in (("a", eyes), ("b", tmp_path / "others" / "checkpoint")):
        trainer = Trainer(replace(base, out=tmp_path / name, eyes=folder, freeze_eyes=True), TINY)
        seen.append((eyes_hash(trainer.model.vision), trainer.data.seen[0]))
    assert seen[0][0] != seen[1][0]
    assert np.abs(seen[0][1] - seen[1][1]).max() > 1e-3
    folder = front_cache.folder_of(dyads, TINY) / ids_of(dyads)[0]
    assert {f"seen-{name}.npy" for name, _ in seen} <= {p.name for p in folder.iterdir()}


def test_extra_speakers_keep_their_features_beside_their_own_media(
    base: Config, dyads: Path, speakers: Path, eyes: Path, tmp_path: Path
) -> None:
    labels = label(speakers, tmp_path / "labels", ids_of(speakers))
    extra = {"extra": speakers, "extra_labels": labels}
    trainer = Trainer(replace(base, out=tmp_path / "run", eyes=eyes, freeze_eyes=True, **extra), TINY)
    for session, seen in zip(trainer.data.train, trainer.data.seen, strict=True):
        root = speakers if session.id in ids_of(speakers) else dyads
        kept = front_cache.folder_of(root, TINY) / session.id / f"seen-{eyes_hash(trainer.model.vision)}.npy"
        np.testing.assert_array_equal(np.load(kept), seen)


@pytest.mark.parametrize("learns", [False, True])
def test_quantisation_aware_steps_leave_the_eyes_alone_unless_told(base: Config, tmp_path: Path, learns: bool) -> None:
    trainer = Trainer(replace(base, out=tmp_path, steps=1, qat_steps=3, qat_eyes=learns), TINY)
    honest, at = trainer._begin_quantisation, {}

    def begin() -> None:
        honest()
        at["eyes"], at["heads"] = weights_of(trainer.averaged.vision), weights_of(trainer.averaged.heads)

    trainer._begin_quantisation = begin  # pyright: ignore[reportAttributeAccessIssue]
    trainer.run()
    for model in (trainer.model, trainer.averaged):
        assert equal(weights_of(model.vision), at["eyes"]) is not learns
        assert not equal(weights_of(model.heads), at["heads"])


# ---- losses that explode --------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["float", "quantisation-aware"])
def test_a_loss_that_is_no_number_leaves_a_last_good_checkpoint_that_loads(
    base: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    config = replace(base, out=tmp_path, steps=4 if phase == "float" else 1, qat_steps=4)
    trainer = Trainer(config, TINY)
    good: dict[str, Tensor] = {}

    def broken(*args: object) -> dict[str, Tensor]:
        terms = objective(*args)  # pyright: ignore[reportArgumentType]
        if trainer.step >= 3:
            good.update(weights_of(trainer.averaged))
            terms["loss"] = terms["loss"] * torch.nan
        return terms

    monkeypatch.setattr(training, "objective", broken)
    with pytest.raises(
        ValueError, match=rf"loss became nan at step 3; the last good checkpoint is kept in {tmp_path}/last_good"
    ):
        trainer.run()
    kept = checkpoint.load(tmp_path / "last_good")
    assert (tmp_path / "last_good" / "quant.json").is_file() is (phase != "float")
    assert all(torch.isfinite(w).all() for w in kept.state_dict().values())
    if phase == "float":
        assert equal(kept.state_dict(), good)
    assert len((tmp_path / "metrics.jsonl").read_text(encoding="utf8").splitlines()) == 3
    assert not (tmp_path / "checkpoint").exists()


def test_a_gradient_that_is_no_number_spoils_no_weight(
    base: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(replace(base, out=tmp_path), TINY)

    def cliff(logits: Tensor, *args: object) -> dict[str, Tensor]:
        terms = objective(logits, *args)  # pyright: ignore[reportArgumentType]
        if trainer.step == 1:
            terms["loss"] = terms["loss"] + torch.sqrt((logits * 0).sum())  # worth 0, with an infinite slope
        return terms

    monkeypatch.setattr(training, "objective", cliff)
    with pytest.raises(ValueError, match="gradient became nan at step 1; the last good checkpoint is kept"):
        trainer.run()
    for model in (trainer.model, checkpoint.load(tmp_path / "last_good")):
        assert all(torch.isfinite(w).all() for w in model.state_dict().values())


def test_a_first_step_that_fails_promises_no_checkpoint(
    base: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(replace(base, out=tmp_path), TINY)

    def broken(logits: Tensor, *_: object) -> dict[str, Tensor]:
        return {"loss": logits.sum() * torch.nan}

    monkeypatch.setattr(training, "objective", broken)
    with pytest.raises(ValueError, match="loss became nan at step 0; lower --learning-rate"):
        trainer.run()
    assert not (tmp_path / "last_good").exists()


# ---- labels ---------------------------------------------------------------------------------------------------


def test_a_teacher_of_other_units_is_refused_by_the_units_that_differ(base: Config, tmp_path: Path) -> None:
    names = (*TINY.au_names[:-1], "AU99")
    SoftLabelStore.create(tmp_path / "labels", au_names=names, **RUN)
    with pytest.raises(ValueError, match=r"labels: made for other action units \(.*AU99.*\); make it again") as refusal:
        Trainer(replace(base, out=tmp_path / "run", labels=tmp_path / "labels"), TINY)
    assert TINY.au_names[-1] in str(refusal.value)


def test_a_teacher_at_another_rate_is_refused_by_both_rates(base: Config, tmp_path: Path) -> None:
    SoftLabelStore.create(tmp_path / "labels", au_names=TINY.au_names, fps=25, **RUN)
    with pytest.raises(ValueError, match="labels: made at 25 frames per second, wanted 30"):
        Trainer(replace(base, out=tmp_path / "run", labels=tmp_path / "labels"), TINY)


def test_units_that_never_occur_or_that_nobody_annotated_train_along(base: Config, dyads: Path, tmp_path: Path) -> None:
    def thin(session: Session) -> Session:
        prob, act = session.prob.copy(), session.act.copy()
        prob[:, 3] = act[:, 3] = 0
        prob[:, 5] = act[:, 5] = np.nan
        return replace(session, prob=prob, act=act)

    root = copy_of(dyads, tmp_path / "thin", thin)
    trainer = train(replace(base, dataset=root, out=tmp_path / "run", qat_steps=1))
    trainer.ship()
    assert (trainer.data.mean[3], trainer.data.mean[5]) == (0, 0)
    assert 0 < trainer.data.mean[0] < 1
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf8").splitlines()]
    assert np.isfinite([row["loss"] for row in rows]).all()
    assert all(torch.isfinite(w).all() for w in trainer.averaged.state_dict().values())
    assert abs(trainer.data.sampler._share.sum() - 1) < 1e-9
    assert (trainer.data.sampler._share > 0).all()


def test_a_unit_that_only_the_teacher_knows_is_learned_from_the_teacher(
    base: Config, dyads: Path, tmp_path: Path
) -> None:
    def unseen(session: Session) -> Session:
        prob, act = session.prob.copy(), session.act.copy()
        prob[:, 5] = act[:, 5] = np.nan
        return replace(session, prob=prob, act=act)

    root = copy_of(dyads, tmp_path / "thin", unseen)
    moved = []
    for name, labels in (("without", None), ("with", label(root, tmp_path / "labels", ids_of(root)))):
        trainer = Trainer(replace(base, dataset=root, out=tmp_path / name, labels=labels, weight_decay=0.0), TINY)
        before = trainer.model.heads.out.bias.detach().reshape(trainer.model.heads.shape)[:, 5].clone()
        trainer._train_step(trainer.data.batch(0))
        after = trainer.model.heads.out.bias.detach().reshape(trainer.model.heads.shape)[:, 5]
        moved.append(float((after - before).abs().max()))
    assert moved[0] == 0
    assert moved[1] > 0


# ---- students that cannot be --------------------------------------------------------------------------------


def test_a_backbone_without_features_at_the_wanted_stride_ends_the_run_with_those_there_are(
    base: Config, dyads: Path, tmp_path: Path
) -> None:
    configuration.save(TINY.replace(backbone="test_resnet", backbone_stride=1), tmp_path / "odd.yaml")
    flags = ["--dataset", str(dyads), "--out", str(tmp_path / "run"), "--student", str(tmp_path / "odd.yaml")]
    with pytest.raises(
        ValueError, match=r"test_resnet has features at strides \[2, 4, .*\], not at 1; set backbone_stride"
    ):
        main([*flags, "--workers", "1", "--threads", "1", "--clip-frames", "24", "--device", "cpu"])
