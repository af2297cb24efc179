"""Near copies of sounds are of one recording: not another speaker who says the same word, nor the word said again."""

import io

import numpy as np
import pytest
import soundfile

from headstart.preprocess import sound_copies
from headstart.preprocess.sound_copies import find_copies

RATE = 16_000


def word(speaker, seconds=0.7, seed=0):
    """A word of four vowels: its formants are the same for every speaker, pitch and breath are the speaker's own."""
    random = np.random.default_rng([seed, speaker])
    moments = np.arange(int(seconds * RATE)) / RATE
    pitch = 110 + 17 * speaker + 6 * np.sin(2 * np.pi * 2 * moments + speaker)
    phase = np.cumsum(2 * np.pi * pitch / RATE)
    which = np.minimum((moments / seconds * 4).astype(int), 3)
    formants = np.array([[700, 1100], [300, 2200], [500, 900], [350, 1800]])[which]
    voice = np.zeros(len(moments))
    for harmonic in range(1, 30):
        near = sum(np.exp(-(((harmonic * pitch - formants[:, place]) / 250) ** 2)) for place in range(2))
        voice += near * np.sin(harmonic * phase + random.uniform(0, 6))
    envelope = np.abs(np.sin(2 * np.pi * 2 * moments / seconds)) + 0.02
    return (0.2 * envelope * voice + random.normal(0, 0.002, len(moments))).astype(np.float32)


def coded(samples, kind):
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE, format=kind)
    return stream.getvalue()


def test_other_speakers_and_the_word_said_again_are_no_copies(monkeypatch):
    sounds = [(word(speaker), RATE) for speaker in (0, 1, 2)] + [(word(0, seed=1), RATE)]
    assert find_copies(sounds) == []
    monkeypatch.setattr(sound_copies, "LEAST_CORRELATED", 0.0)
    assert find_copies(sounds), "by their bands alone some are alike"


@pytest.mark.parametrize("change", ["mp3", "ogg", "quiet", "upside down", "delayed", "noisy"])
def test_a_recording_coded_anew_or_changed_a_little_is_a_copy(change):
    samples = np.concatenate([word(speaker) for speaker in range(3)])
    copy = {
        "mp3": lambda: coded(samples, "MP3"),
        "ogg": lambda: coded(samples, "OGG"),
        "quiet": lambda: (0.2 * samples, RATE),
        "upside down": lambda: (-samples, RATE),
        "delayed": lambda: (np.concatenate([samples[:1] * np.ones(200, np.float32), samples]), RATE),
        "noisy": lambda: (samples + np.random.default_rng(0).normal(0, 0.001, len(samples)).astype(np.float32), RATE),
    }[change]()
    assert find_copies([(samples, RATE), (word(7), RATE), copy]) == [(0, 2)]


def test_many_copies_are_joined_without_comparing_every_pair(monkeypatch):
    compared, coincide = [], sound_copies._coincide
    monkeypatch.setattr(sound_copies, "_coincide", lambda one, other: compared.append(1) or coincide(one, other))
    sounds = [((0.5 + 0.02 * number) * word(0), RATE) for number in range(12)]
    assert find_copies(sounds) == [(0, other) for other in range(1, 12)] and len(compared) == 11
