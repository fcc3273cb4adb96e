"""The drawn face and the made voice: found by a detector, every unit to be seen, every ending to be heard."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dyad.action_units import SEED17
from dyad.clock import SAMPLE_RATE_HZ
from dyad.synthetic.face import SIZE_PX, FaceArtist
from dyad.synthetic.identity import Identity
from dyad.synthetic.voice import LEVEL, PHRASES, EspeakVoice, FormantVoice, laughter

STILL = np.zeros(6, np.float32)


def artist(seed: int) -> FaceArtist:
    rng = np.random.default_rng([5, seed])
    return FaceArtist(Identity.draw(rng, SIZE_PX), rng)


def units(**intensity: float) -> NDArray[np.float32]:
    values = np.zeros(17, np.float32)
    for unit, value in intensity.items():
        values[SEED17.index(unit)] = value
    return values


def test_a_frontal_detector_finds_nine_of_ten_drawn_faces() -> None:
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"))
    rng, found = np.random.default_rng(1), []
    for seed in range(24):
        who = artist(seed)
        for k in range(3):
            shown = units(**dict.fromkeys(rng.choice(SEED17.units, 2), 0.9) if k else {})
            pose = np.array([*rng.normal(0, (0.08, 0.05, 0.03)), 0, 0, 0], np.float32)
            grey = cv2.cvtColor(who.draw(shown, pose, k), cv2.COLOR_RGB2GRAY)
            found.append(len(cascade.detectMultiScale(grey, 1.2, 4, minSize=(SIZE_PX // 4, SIZE_PX // 4))) > 0)
    assert np.mean(found) >= 0.9


def test_the_same_identity_is_drawn_the_same_every_time() -> None:
    shown = units(AU12=0.7, AU6=0.5)
    np.testing.assert_array_equal(artist(2).draw(shown, STILL, 7), artist(2).draw(shown, STILL, 7))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_unit_changes_the_face_in_its_own_way(seed: int) -> None:
    who = artist(seed)
    plain = who.draw(units(), STILL, 0).astype(np.float64)
    change = {u: (who.draw(units(**{u: 1.0}), STILL, 0) - plain).ravel() for u in SEED17.units}
    for unit, pixels in change.items():
        assert (np.abs(pixels) > 12).sum() > 60, f"{unit} is hardly to be seen"
    table = np.corrcoef(np.array(list(change.values())))
    assert (table - np.eye(17)).max() < 0.9


def test_parted_lips_show_beside_a_dropped_jaw() -> None:
    who = artist(3)
    dropped = who.draw(units(AU26=0.6), STILL, 0).astype(int)
    both = who.draw(units(AU25=0.9, AU26=0.6), STILL, 0).astype(int)
    assert (np.abs(both - dropped).max(axis=2) > 30).sum() > 100


def test_closed_eyelids_hide_the_white_of_the_eye() -> None:
    who = artist(4)
    shut = np.array([0, 0, 0, 0, 0, 1], np.float32)
    opened, closed = who.draw(units(), STILL, 0), who.draw(units(), shut, 0)
    x, y = (round(p * SIZE_PX) for p in who.who.place)
    eyes = np.s_[y - 30 : y, x - 45 : x + 45]
    white = [(picture[eyes].min(axis=2) > 200).sum() for picture in (opened, closed)]
    assert white[0] > 40
    assert white[1] < 0.2 * white[0]


def pitch_hz(sound: NDArray[np.float32]) -> float:
    """Fundamental of a voiced piece by the peak of its autocorrelation, 60 to 450 Hz."""
    piece = sound - sound.mean()
    echo = np.correlate(piece, piece, "full")[len(piece) - 1 :]
    near, far = SAMPLE_RATE_HZ // 450, SAMPLE_RATE_HZ // 60
    return SAMPLE_RATE_HZ / (near + int(np.argmax(echo[near:far])))


def test_a_phrase_ends_low_flat_or_rising_as_asked() -> None:
    voice = FormantVoice(pitch_hz=120, syllables_per_s=4)
    syllable = SAMPLE_RATE_HZ // 4
    ends = {k: pitch_hz(voice.say(PHRASES["neutral"][0], k)[-syllable + 900 : -800]) for k in ("low", "flat", "rise")}
    assert ends["low"] < 0.85 * ends["flat"]
    assert ends["rise"] > 1.3 * ends["flat"]


def test_phrases_keep_the_same_loudness() -> None:
    voice = FormantVoice(pitch_hz=200, syllables_per_s=4.5)
    for topic, texts in PHRASES.items():
        sound = voice.say(texts[0], "flat")
        assert sound.dtype == np.float32, topic
        assert np.sqrt(np.mean(sound.astype(np.float64) ** 2)) == pytest.approx(LEVEL, rel=1e-3)


def test_laughter_comes_in_bursts_a_fifth_of_a_second_apart() -> None:
    sound = laughter(150, 6, np.random.default_rng(0))
    assert 6 * 0.17 <= len(sound) / SAMPLE_RATE_HZ <= 6 * 0.22
    loud = np.sqrt(np.convolve(sound**2, np.ones(400) / 400, "same"))
    spectrum = np.abs(np.fft.rfft(loud - loud.mean()))
    rate_hz = np.fft.rfftfreq(len(loud), 1 / SAMPLE_RATE_HZ)
    band = (rate_hz > 2) & (rate_hz < 12)
    assert 4.3 < rate_hz[band][spectrum[band].argmax()] < 6.1


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_says_the_same_phrase_twice_alike_and_at_the_level() -> None:
    text = PHRASES["question"][0]
    first, second = (EspeakVoice("en-us+m2", 50, 165).say(text, "rise") for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.sqrt(np.mean(first.astype(np.float64) ** 2)) == pytest.approx(LEVEL, rel=1e-3)
    assert 0.5 < len(first) / SAMPLE_RATE_HZ < 4
