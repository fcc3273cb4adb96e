"""The ears: log-mel held to an independent Fourier transform and filter bank, at exactly four instants per frame."""

import numpy as np
import pytest
import torch
import torchaudio

from dyad import clock
from student.audio import FFT, HIGH_HZ, LOW_HZ, Audio, LogMel, mel_filters
from student.frontend import audio_window
from student.spec import StudentSpec


def test_log_mel_equals_numpys_transform_with_torchaudios_filters() -> None:
    bands = 64
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    filters = torchaudio.functional.melscale_fbanks(
        FFT // 2 + 1, LOW_HZ, HIGH_HZ, bands, 16000, norm=None, mel_scale="htk"
    ).numpy()
    window = torch.hann_window(400, periodic=True, dtype=torch.float64).numpy()
    spec, mel = StudentSpec(mel_bins=bands), LogMel(bands)
    for frame in (0, 1, 7, 28):
        got = mel(torch.from_numpy(audio_window(sound, frame, spec))[None])[0].reshape(4, bands)
        for row, before in zip(got, (400, 267, 133, 0), strict=True):
            stop = clock.audio_end(frame) - before
            piece = np.zeros(400)
            heard = sound[max(stop - 400, 0) : max(stop, 0)]
            piece[400 - len(heard) :] = heard
            power = np.abs(np.fft.rfft(piece * window, FFT)) ** 2 @ filters
            np.testing.assert_allclose(row.numpy(), np.log(power + 1e-5) / 4, atol=2e-4)


@pytest.mark.parametrize("bands", [16, 40, 64])
def test_every_mel_band_hears_something_and_none_hears_direct_current(bands: int) -> None:
    filters = mel_filters(bands)
    assert (filters.sum(axis=0) > 0.1).all()
    assert not filters[0].any()


def test_a_tone_is_loudest_in_the_band_that_holds_it() -> None:
    filters, mel = mel_filters(64), LogMel(64)
    for hz in (300.0, 1000.0, 4000.0):
        tone = 0.1 * torch.sin(2 * torch.pi * hz * torch.arange(800) / 16000)
        loudest = int(mel(tone[None])[0].reshape(4, 64).mean(0).argmax())
        centre_hz = (
            16000 / FFT * float((filters[:, loudest] * np.arange(FFT // 2 + 1)).sum() / filters[:, loudest].sum())
        )
        assert abs(centre_hz - hz) < 0.12 * hz + 20


def test_silence_and_full_scale_stay_finite_and_near_one() -> None:
    mel = LogMel(64)
    loud = torch.sign(torch.sin(torch.arange(800.0) / 3))
    for sound in (torch.zeros(800), loud):
        assert mel(sound[None]).abs().max() < 4
        assert mel(sound[None]).isfinite().all()


def test_the_basis_is_no_weight_and_costs_nothing_in_the_checkpoint() -> None:
    names = Audio(StudentSpec()).state_dict()
    assert not [n for n in names if "basis" in n or "filters" in n]
