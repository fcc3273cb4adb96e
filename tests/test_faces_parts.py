"""The parts of whom-to-watch: detectors, looks and persons, voice, speaker's choice."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deploy.faces import detectors, embedding
from deploy.faces.anchors import MOST_ANCHORS, SHARP, AnchorBank, Register, is_frontal, sharpness
from deploy.faces.config import FacesConfig
from deploy.faces.embedding import CROP_PX, HistogramEmbedding, crop_of, texture, unit
from deploy.faces.flow import moved
from deploy.faces.people import JUDGE_EVERY_FRAMES, People, Sighting
from deploy.faces.speaker import Mean, SpeakerChoice, Weights
from deploy.faces.voice import VoiceActivity
from dyad import media
from dyad.clock import SAMPLE_RATE_HZ, audio_end
from dyad.synthetic.face import FaceArtist
from dyad.synthetic.identity import Identity
from dyad.synthetic.voice import FormantVoice
from student.detect import HaarDetector

Picture = NDArray[np.uint8]


def portrait(seed: int, frame: int = 0, mouth: float = 0.0) -> Picture:
    rng = np.random.default_rng(seed)
    units = np.full(17, mouth, np.float32)
    return FaceArtist(Identity.draw(rng, 224), rng).draw(units, np.zeros(6, np.float32), frame)


def crop(seed: int, frame: int = 0) -> Picture:
    return crop_of(portrait(seed, frame), np.array([40.0, 40.0, 190.0, 190.0]))


def direction(angle: float, size: int = 8) -> NDArray[np.float32]:
    return unit(np.array([np.cos(angle), np.sin(angle)] + [0.0] * (size - 2)))


def test_a_person_looks_like_themselves_and_unlike_others() -> None:
    known = HistogramEmbedding()
    vectors = {(seed, frame): known.embed(crop(seed, frame)) for seed in (3, 5, 8) for frame in (0, 2)}
    for (seed, _), vector in vectors.items():
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
        for (other, _), rival in vectors.items():
            likeness = float(vector @ rival)
            assert likeness > known.same if other == seed else likeness < known.same


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_texture_agrees_with_a_count_by_hand_and_knows_no_brightness(seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 200, (10, 10), dtype=np.uint8)
    counts = np.zeros((1, 10))
    ring = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    for y in range(1, 9):
        for x in range(1, 9):
            bits = [int(grey[y + dy, x + dx] > grey[y, x]) for dy, dx in ring]
            changes = sum(bits[k] != bits[k - 1] for k in range(8))
            counts[0, sum(bits) if changes <= 2 else 9] += 1
    np.testing.assert_allclose(texture(grey, 1), counts.ravel() / 64, rtol=1e-6)
    np.testing.assert_array_equal(texture(grey, 2), texture((grey + 50).astype(np.uint8), 2))


def test_a_blurred_face_is_not_sharp_enough_to_be_remembered() -> None:
    face = crop(3)
    assert sharpness(face) > SHARP
    assert sharpness(np.asarray(cv2.GaussianBlur(face, (0, 0), 4), np.uint8)) < SHARP


def test_a_turned_face_is_not_frontal() -> None:
    eyes = np.array([[40.0, 40.0], [80.0, 40.0], [60.0, 60.0], [45.0, 80.0], [75.0, 80.0]])
    turned = eyes.copy()
    turned[2, 0] = 78.0
    assert is_frontal(0.0, eyes)
    assert not is_frontal(1.0, turned)
    assert is_frontal(0.9, None)
    assert not is_frontal(0.1, None)


def test_only_new_looks_of_the_same_person_become_anchors() -> None:
    known = HistogramEmbedding()
    bank = AnchorBank(known)
    assert bank.likeness(direction(0)) == -1
    assert bank.learn(direction(0), 0)
    assert not bank.learn(direction(0.05), 1)  # the same look: cosine 0.999
    assert bank.learn(direction(0.3), 2)  # another look: 0.955
    assert not bank.learn(direction(2), 3)  # somebody else
    assert len(bank.anchors) == 2
    assert bank.anchors[0].at_s == 1  # a look seen again is young again


@given(st.lists(st.tuples(st.floats(-0.6, 0.6), st.floats(0, 100)), max_size=40))
@settings(max_examples=50, deadline=None)
def test_a_bank_never_holds_more_than_its_anchors_nor_two_of_one_look(looks: list[tuple[float, float]]) -> None:
    known, now = HistogramEmbedding(), 0.0
    bank = AnchorBank(known)
    for angle, later in looks:
        now += later
        bank.learn(direction(angle), now)
        assert len(bank.anchors) <= MOST_ANCHORS
        for i, one in enumerate(bank.anchors):
            assert all(float(one.vector @ two.vector) < known.alike for two in bank.anchors[i + 1 :])


def test_a_register_knows_who_returns_doubts_in_between_and_forgets_in_time() -> None:
    register = Register(HistogramEmbedding(), remember_s=10)
    one = register.newcomer(0)
    register.see(one, 0, direction(0))
    assert register.recognise(direction(0.1), {one}) == (one, True)
    assert register.recognise(direction(0.35), {one}) == (None, False)  # cosine 0.939
    assert register.recognise(direction(1), {one}) == (None, True)
    assert register.recognise(direction(0.1), set()) == (None, True)  # who is in view cannot return
    assert register.newcomer(20) == 2
    assert register.absent(set()) == {2}


def test_two_detections_of_one_face_are_one_person_and_a_single_one_is_nobody() -> None:
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[60:160, 60:160] = cv2.resize(portrait(3), (100, 100))
    people = People(Register(HistogramEmbedding(), 60), most=4)
    box = np.array([70.0, 70.0, 150.0, 150.0])
    for _ in range(4):
        people.move([None] * len(people.tracks))
        people.meet(picture, [Sighting(box, 0.8), Sighting(box + 5, 0.8)])
    assert list(people.known) == [1]
    assert len(people.tracks) == 1
    people.meet(picture, [Sighting(box + 120, 0.8), Sighting(np.array([100.0, 90.0, 130.0, 120.0]), 0.8)])
    assert list(people.known) == [1]
    assert len(people.tracks) == 2  # an eye is not another face


@pytest.mark.parametrize("step", [(0.0, 0.0), (3.0, -2.0), (-4.5, 1.5)])
def test_flow_measures_how_far_a_face_went(step: tuple[float, float]) -> None:
    face = np.full((200, 260), 90, np.uint8)
    face[40:140, 60:160] = cv2.cvtColor(cv2.resize(portrait(3), (100, 100)), cv2.COLOR_RGB2GRAY)
    move = np.array([[1, 0, step[0]], [0, 1, step[1]]])
    later = np.asarray(cv2.warpAffine(face, move, (260, 200), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    found, lost = moved(face, later, [np.array([75.0, 55.0, 145.0, 125.0]), np.array([600.0, 600.0, 700.0, 700.0])])
    assert found is not None
    np.testing.assert_allclose(found, step, atol=0.3)
    assert lost is None
    assert moved(face, later, []) == []


def windows(sound: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    padded = np.concatenate([np.zeros(800, np.float32), sound])
    return [padded[audio_end(t) : audio_end(t) + 800] for t in range(len(sound) * 30 // SAMPLE_RATE_HZ)]


def test_voice_is_heard_above_noise_and_a_fan_is_no_voice() -> None:
    rng = np.random.default_rng(0)
    phrase = FormantVoice(120, 4.5).say("so we went to the station in the morning", "low")
    noise = rng.normal(0, 0.002, 16000 + len(phrase) + 16000).astype(np.float32)
    noise[16000 : 16000 + len(phrase)] += phrase
    meter = VoiceActivity()
    activity = np.array([meter.step(w) for w in windows(noise)])
    end = 30 + len(phrase) * 30 // SAMPLE_RATE_HZ
    assert activity[:29].max() < 0.3
    assert (activity[33 : end - 1] > 0.5).mean() > 0.8
    assert activity[end + 10 :].max() < 0.3
    fan = VoiceActivity()
    loud = [fan.step(w) for w in windows(rng.normal(0, 0.1, 32000).astype(np.float32))]
    assert max(loud) < 0.5


def test_digital_silence_is_no_voice_and_later_sound_changes_nothing() -> None:
    meter, again = VoiceActivity(), VoiceActivity()
    assert max(meter.step(np.zeros(800, np.float32)) for _ in range(30)) < 0.05
    sound = [np.random.default_rng(t).normal(0, 0.1, 800).astype(np.float32) for t in range(20)]
    whole = [again.step(w) for w in sound]
    fresh = VoiceActivity()
    assert [fresh.step(w) for w in sound[:10]] == whole[:10]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=50))
def test_the_running_mean_is_unbiased_from_the_first_value(values: list[float]) -> None:
    mean = Mean(0.5)
    for value in values:
        mean.step(value)
    share = 1 / (0.5 * 30 + 1)
    weights = share * (1 - share) ** np.arange(len(values))[::-1]
    assert mean.value == pytest.approx(float(np.average(values, weights=weights)), abs=1e-9)


def talk(choice: SpeakerChoice, frames: int, speaker: int, watched: int, *, voice: float = 1.0) -> list[int]:
    """Two faces side by side of which one moves its mouth; whom the robot watches after each frame."""
    calm, moving = (cv2.cvtColor(portrait(s), cv2.COLOR_RGB2GRAY) for s in (5, 3))
    wide = cv2.cvtColor(portrait(3, mouth=0.9), cv2.COLOR_RGB2GRAY)
    chosen = []
    for t in range(frames):
        pair = [calm, wide if t % 8 < 4 else moving]
        grey = np.concatenate(pair if speaker == 2 else pair[::-1], axis=1)
        choice.hear(voice * (1.0 if t % 8 < 4 else 0.6), -20 if t % 8 < 4 else -40)
        choice.watch(grey, {n: np.array([40.0, 40, 190, 190]) + (n - 1) * np.array([224, 0, 224, 0]) for n in (1, 2)})
        watched = choice.choose(watched)
        chosen.append(watched)
    return chosen


def test_the_choice_waits_before_it_turns_and_does_not_turn_in_silence() -> None:
    chosen = talk(SpeakerChoice(0.7, 0.1), 60, speaker=2, watched=1)
    assert 20 < chosen.index(2) < 50
    assert set(chosen[chosen.index(2) :]) == {2}
    assert set(talk(SpeakerChoice(0.7, 0.1), 60, speaker=2, watched=1, voice=0.0)) == {1}
    assert set(talk(SpeakerChoice(0.7, 0.1), 60, speaker=1, watched=1)) == {1}


def test_a_face_followed_closely_needs_a_search_now_and_then_only() -> None:
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[60:160, 60:160] = cv2.resize(portrait(3), (100, 100))
    people = People(Register(HistogramEmbedding(), 60), most=4)
    box, needed = np.array([70.0, 70.0, 150.0, 150.0]), []
    for t in range(3 * JUDGE_EVERY_FRAMES):
        people.move([None] * len(people.tracks))
        judged = not needed or needed[-1]
        people.meet(picture, [Sighting(box, 0.8 if judged and t % 10 == 0 else 0.0)] if t % 5 == 0 else [])
        needed.append(people.needs_a_search(people.tracks[0]))
    assert needed[0], "a look of it is not known yet"
    assert 0.7 < 1 - np.mean(needed[JUDGE_EVERY_FRAMES:]) < 1
    people.tracks[0].unseen_frames = JUDGE_EVERY_FRAMES // 2
    assert people.needs_a_search(people.tracks[0]), "it was missed"


def test_clues_weighed_again_give_the_scores_that_watching_gave() -> None:
    live, again, other = (SpeakerChoice(0.7, 0.1, w) for w in (Weights(), Weights(), Weights(agreement=0.0)))

    class Copied(SpeakerChoice):
        def weigh(self, mouths: Any) -> None:
            super().weigh(mouths)
            for choice in (again, other):
                choice.hear(self.clues.voice, self.clues.level_db)
                choice.weigh(self.clues.mouths)

    live = Copied(0.7, 0.1)
    talk(live, 60, speaker=2, watched=1)
    assert live.scores() == again.scores()
    assert live.scores() != other.scores()
    assert sum(other.scores().values()) == pytest.approx(1, abs=0.05), "shares of all the mouths' motion"


@pytest.mark.parametrize("effort", ["quick", "usual", "close"])
def test_the_cascade_finds_a_face_with_any_effort_and_in_a_region(effort: Any) -> None:
    room = np.full((240, 320, 3), 110, np.uint8)
    room[40:180, 100:240] = cv2.resize(portrait(3), (140, 140))
    detector = HaarDetector()
    whole = detector.find(room, least_px=40, effort=effort)
    part = detector.find(room, (80, 20, 260, 200), least_px=40, effort=effort)
    for faces in (whole, part):
        assert len(faces.boxes) == 1
        centre = (faces.boxes[0, :2] + faces.boxes[0, 2:]) / 2
        np.testing.assert_allclose(centre, (170, 115), atol=12)
        assert 0 < faces.scores[0] < 1
    assert len(detector.find(room, (300, 200, 900, 900), least_px=40).boxes) == 0


def tiny_yunet(path: Path) -> None:
    """A network with YuNet's inputs and outputs: a face of 64 px wherever a cell of 8 px is white."""
    onnx = pytest.importorskip("onnx")
    make, kinds = onnx.helper, {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    nodes, outputs, weights = [], [], []
    for stride in (8, 16, 32):
        pooled = f"pooled_{stride}"
        nodes.append(
            make.make_node("AveragePool", ["input"], [pooled], kernel_shape=[stride] * 2, strides=[stride] * 2)
        )
        for kind, width in kinds.items():
            kernel = np.zeros((width, 3, 1, 1), np.float32)
            bias = np.zeros(width, np.float32)
            if kind in ("cls", "obj") and stride == 8:
                kernel[:], bias[:] = 0.1, -70.0  # above zero from level 233 on
            if kind == "bbox":
                bias[2], bias[3] = np.log(8), np.log(8)
            name = f"{kind}_{stride}"
            weights += [onnx.numpy_helper.from_array(v, f"{name}.{k}") for k, v in (("w", kernel), ("b", bias))]
            weights.append(onnx.numpy_helper.from_array(np.array([1, -1, width]), f"{name}.shape"))
            nodes.append(make.make_node("Conv", [pooled, f"{name}.w", f"{name}.b"], [f"{name}.conv"]))
            last = f"{name}.conv"
            if kind in ("cls", "obj"):
                nodes.append(make.make_node("Sigmoid", [last], [f"{name}.share"]))
                last = f"{name}.share"
            nodes.append(make.make_node("Transpose", [last], [f"{name}.rows"], perm=[0, 2, 3, 1]))
            nodes.append(make.make_node("Reshape", [f"{name}.rows", f"{name}.shape"], [name]))
    for kind, width in kinds.items():
        outputs += [make.make_tensor_value_info(f"{kind}_{s}", 1, [1, (640 // s) ** 2, width]) for s in (8, 16, 32)]
    given_ = make.make_tensor_value_info("input", 1, [1, 3, 640, 640])
    graph = make.make_graph(nodes, "yunet", [given_], outputs, weights)
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 11)], ir_version=8), str(path))


def test_yunets_boxes_come_back_in_pixels_of_the_picture_and_in_the_cascades_shape(tmp_path: Path) -> None:
    tiny_yunet(tmp_path / "yunet.onnx")
    detector = detectors.load("yunet", tmp_path / "yunet.onnx")
    picture = np.zeros((192, 256, 3), np.uint8)
    picture[64:72, 128:136] = 255  # exactly one cell: centre 128, 64 by YuNet's rule, 64 px wide
    side = 0.96 * 64
    for region in (None, (64, 0, 256, 192)):
        faces = detector.find(picture, region, least_px=40 if region is None else 72)
        if region is not None:
            assert len(faces.boxes) == 0  # narrower than asked for
            continue
        assert len(faces.boxes) == 1
        want = [128 - side / 2, 64 - 0.02 * 64 - side / 2, 128 + side / 2, 64 - 0.02 * 64 + side / 2]
        np.testing.assert_allclose(faces.boxes[0], want, atol=1.5)
        assert faces.points is not None
        assert faces.points.shape == (1, 5, 2)
        assert faces.scores[0] > 0.6
    assert len(detector.find(np.zeros_like(picture)).boxes) == 0


def test_a_missing_or_broken_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file; give YuNet's ONNX file"):
        detectors.load("yunet", tmp_path / "none.onnx")
    with pytest.raises(ValueError, match="set detector_model"):
        detectors.load("yunet", None)
    with pytest.raises(ValueError, match="known: haar, yunet"):
        detectors.load("mediapipe", None)
    with pytest.raises(ValueError, match="yunet needs a model file"):
        FacesConfig(detector="yunet")
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(ValueError, match="cannot load it as YuNet"):
        detectors.load("yunet", tmp_path / "broken.onnx").find(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="no such file; give the ONNX file of sface"):
        embedding.load("sface", tmp_path / "none.onnx")
    with pytest.raises(ValueError, match="known: histogram"):
        embedding.load("dlib", None)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_people", 0), ("switch_s", 0.0), ("remember_s", -1.0), ("frozen_s", 0.0), ("switch_margin", 1.0)],
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        FacesConfig(**{field: value})


def test_a_recognition_network_gets_the_pixels_that_it_was_trained_on(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    nodes = [make.make_node("GlobalAveragePool", ["data"], ["mean"]), make.make_node("Flatten", ["mean"], ["fc1"])]
    given_ = make.make_tensor_value_info("data", 1, [1, 3, CROP_PX, CROP_PX])
    graph = make.make_graph(nodes, "mean", [given_], [make.make_tensor_value_info("fc1", 1, [1, 3])])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 11)], ir_version=8)
    onnx.save(model, str(tmp_path / "mean.onnx"))
    face = np.zeros((CROP_PX, CROP_PX, 3), np.uint8) + np.array([255, 128, 0], np.uint8)
    plain = embedding.load("sface", tmp_path / "mean.onnx").embed(face)
    np.testing.assert_allclose(plain, unit(np.array([255.0, 128.0, 0.0])), atol=1e-5)
    centred = embedding.load("arcface", tmp_path / "mean.onnx").embed(face)
    np.testing.assert_allclose(centred, unit(np.array([1.0, 0.5 / 127.5, -1.0])), atol=1e-5)


def test_yunet_itself_agrees_with_the_cascade_on_real_speakers(real_data: Path) -> None:
    model = real_data / "models" / "face_detection_yunet_2023mar.onnx"
    if not model.is_file():
        pytest.skip("no YuNet file beside the checkout")
    network, cascade = detectors.load("yunet", model), HaarDetector()
    for name in ("grid_lbbc2a.mpg", "videoretalking_3.mp4"):
        _, picture = next(media.iter_grid_frames(real_data / "speakers" / name))
        scale = 320 / max(picture.shape[:2])
        small = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        one, two = (d.find(small, least_px=60) for d in (network, cascade))
        assert len(one.boxes) == 1
        two_box = two.boxes[np.argmax(two.boxes[:, 2] - two.boxes[:, 0])]
        assert np.abs(one.boxes[0] - two_box).max() < 0.12 * (two_box[2] - two_box[0])
        again = network.find(small, least_px=60)
        np.testing.assert_array_equal(one.boxes, again.boxes)
