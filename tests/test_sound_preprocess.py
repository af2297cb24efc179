"""Sounds as windows: every format and odd sound, resampling, bounded memory, what is noticed and shown."""

import base64
import io
import re
import tracemalloc

import numpy as np
import pytest
import soundfile

from headstart.config import GEOMETRIES
from headstart.errors import ArtifactError, SettingError
from headstart.preprocess.audio import AudioPreprocess
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.recipe import preprocess_from_json
from headstart.preprocess.sound_items import open_sound, sound_key
from headstart.preprocess.sound_lengths import declared_bytes
from headstart.preprocess.windows import place_windows
from sound_models import sound_of

PREPROCESS = AudioPreprocess(rate_hz=16_000, window=8_000, max_windows=8)


def tone(seconds=1.0, rate=16_000, hertz=440.0, level=0.3):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def written(samples, rate=16_000, **how):
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, **({"format": "WAV"} | how))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("how", "close"),
    [
        ({"subtype": "PCM_U8"}, 1e-2),
        ({"subtype": "PCM_16"}, 1e-4),
        ({"subtype": "PCM_24"}, 1e-6),
        ({"subtype": "FLOAT"}, 1e-7),
        ({"subtype": "ULAW"}, 2e-2),
        ({"format": "FLAC"}, 1e-4),
        ({"format": "AIFF"}, 1e-4),
        ({"format": "OGG", "subtype": "VORBIS"}, 5e-2),
        ({"format": "OGG", "subtype": "OPUS"}, 5e-2),
        ({"format": "MP3"}, 5e-2),
    ],
)
def test_every_format_gives_the_same_windows(how, close, tmp_path):
    content = written(tone(rate=16_000), **how)
    windows = PREPROCESS.prepare(content)
    assert windows.shape == (3, 8_000) and windows.dtype == np.float32
    middle = slice(1_000, 7_000)
    expected = PREPROCESS.prepare((tone(), 16_000))
    assert np.abs(windows[:, middle] - expected[:, middle]).max() < close or how.get("subtype") in {"OPUS", "VORBIS"}
    assert np.sqrt(np.mean(windows**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.03)
    (tmp_path / "sound.bin").write_bytes(content)
    np.testing.assert_array_equal(PREPROCESS.prepare(tmp_path / "sound.bin"), windows)
    assert sound_key(tmp_path / "sound.bin") == sound_key(content)


def test_channels_are_averaged_and_rates_are_brought_together():
    left, right = tone(hertz=300), tone(hertz=500)
    stereo = PREPROCESS.prepare(written(np.stack([left, right], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(stereo, PREPROCESS.prepare(((left + right) / 2, 16_000)), atol=1e-6)
    surround = np.stack([tone(hertz=100.0 * n) for n in range(1, 7)], axis=1)
    assert PREPROCESS.prepare(written(surround)).shape == (3, 8_000)
    np.testing.assert_array_equal(PREPROCESS.prepare((surround, 16_000)), PREPROCESS.prepare((surround.T, 16_000)))
    for rate in (8_000, 11_025, 44_100, 48_000):
        found = PREPROCESS.prepare(written(tone(rate=rate), rate, subtype="FLOAT"))
        assert found.shape == (3, 8_000)
        assert np.abs(found[:, 500:7_500] - PREPROCESS.prepare((tone(), 16_000))[:, 500:7_500]).max() < 5e-3


def test_arrays_come_with_their_rate():
    samples = tone()
    plain = PREPROCESS.prepare((samples, 16_000))
    for item in (
        {"array": samples, "sampling_rate": 16_000, "path": None},
        (samples.astype(np.float64), 16_000.0),
        ((samples * 32768).astype(np.int16), 16_000),
    ):
        np.testing.assert_allclose(PREPROCESS.prepare(item), plain, atol=1e-4)
    for wrong, told in (
        (samples, "an array.*, without its rate, which no sound can be read from"),
        ((samples, "fast"), "has the rate 'fast', which is no number above 0 in Hz"),
        ((samples, 0), "has the rate 0,"),
        ((16_000, samples), "has the rate before the samples"),
        (("text", 16_000), "which no sound can be read from"),
        (7, "which no sound can be read from"),
        ((np.zeros((2, 2, 2)), 16_000), re.escape("has samples of shape (2, 2, 2) and type float64")),
    ):
        with pytest.raises(UnreadableItemError, match=told) as caught:
            PREPROCESS.prepare(wrong)
        assert caught.value.kind == "unsupported"


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (b"", "empty", "0 bytes"),
        (b"RIFF", "unreadable", "no sound that can be read"),
        (b"fLaC" + bytes(200), "unreadable", "starts like FLAC, but is damaged or cut off"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "unreadable", "is no sound: it looks like a PNG picture"),
        (
            written(np.zeros(0, np.float32), format="OGG", subtype="VORBIS"),
            "unreadable",
            "OGG of which no frame can be decoded",
        ),
        (b"not a sound at all, but some text", "unreadable", "no sound that can be read"),
        (b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom", "unsupported", "MP4 or M4A .* libsndfile has no codec"),
        (written(np.zeros(0, np.float32)), "empty", "0 frames"),
        (written(np.array([0.1, np.nan, 0.2], np.float32), subtype="FLOAT"), "unreadable", "no numbers"),
    ],
    # A file of sound may hold the time it was written at, which no name of a test should.
    ids=(
        "nothing",
        "its beginning",
        "a damaged FLAC",
        "a picture",
        "an OGG of nothing",
        "words",
        "M4A",
        "no frames",
        "no numbers",
    ),
)
def test_what_is_no_sound_is_refused_by_name(content, kind, told, tmp_path):
    (tmp_path / "odd.wav").write_bytes(content)
    with pytest.raises(UnreadableItemError, match=told) as caught:
        PREPROCESS.prepare(tmp_path / "odd.wav")
    assert caught.value.kind == kind and "odd.wav" in str(caught.value)


def test_a_sound_shorter_than_a_window():
    short = tone(0.01)
    windows = PREPROCESS.prepare((short, 16_000))
    np.testing.assert_array_equal(windows[0, :160], short)
    assert windows.shape == (1, 8_000) and np.isnan(windows[0, 160:]).all()
    again = AudioPreprocess(rate_hz=16_000, window=8_000, short="repeat").prepare((short, 16_000))
    np.testing.assert_array_equal(again[0], np.resize(short, 8_000))
    one = PREPROCESS.prepare((np.array([0.5], np.float32), 16_000))
    assert np.count_nonzero(~np.isnan(one)) == 1


def test_quiet_sounds_are_made_loud_enough_and_silence_stays():
    louder = AudioPreprocess(rate_hz=16_000, window=8_000, least_dbfs=-30.0)
    quiet = louder.prepare((tone(level=1e-3), 16_000))
    assert 20 * np.log10(np.sqrt(np.mean(quiet**2))) == pytest.approx(-30, abs=0.01)
    np.testing.assert_array_equal(louder.prepare((tone(), 16_000)), PREPROCESS.prepare((tone(), 16_000)))
    assert not louder.prepare((np.zeros(9_000, np.float32), 16_000)).any()


def test_every_way_of_reading_long_sounds_is_an_option_of_fit():
    assert set(PREPROCESS.fittings) <= set(GEOMETRIES)


def test_windows_overlap_by_half_and_cover_the_whole():
    for length in (8_001, 12_000, 20_000, 35_999):
        starts = place_windows(length, 8_000, 8, spread=True)
        assert starts[0] == 0 and starts[-1] == length - 8_000
        assert all(0 < after - before <= 4_000 for before, after in zip(starts, starts[1:], strict=False))
    assert place_windows(100, 8_000, 8, spread=True) == [0]
    spread = place_windows(1_000_000, 8_000, 5, spread=True)
    assert spread == [0, 248_000, 496_000, 744_000, 992_000]
    assert place_windows(1_000_000, 8_000, 3, spread=False) == [0, 4_000, 8_000]


def test_windows_of_a_long_sound_are_its_own_samples():
    long = np.random.default_rng(0).normal(0, 0.1, 400_000).astype(np.float32)
    whole = AudioPreprocess(rate_hz=16_000, window=8_000, max_windows=100).prepare((long, 16_000))
    assert len(whole) == 99
    spread = PREPROCESS.prepare((long, 16_000))
    for row, start in enumerate(place_windows(400_000, 8_000, 8, spread=True)):
        np.testing.assert_array_equal(spread[row], long[start : start + 8_000])
    # At another rate, a window cut out alone is what the whole sound has there.
    smooth = tone(60.0, 8_000, 333.0)
    windows, all_of_it = PREPROCESS.prepare((smooth, 8_000)), tone(60.0, 16_000, 333.0)
    for row, start in enumerate(place_windows(960_000, 8_000, 8, spread=True)):
        part = slice(max(0, 400 - start), 8_000 if start + 8_000 < 960_000 else 7_600)
        assert np.abs(windows[row, part] - all_of_it[start : start + 8_000][part]).max() < 5e-3


def test_an_hour_of_sound_takes_no_more_memory_than_its_windows(tmp_path):
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 16_000, 1, subtype="PCM_16") as file:
        for minute in range(60):
            file.write(tone(60.0, 16_000, 200.0 + 10 * minute))
    assert path.stat().st_size > 100e6
    tracemalloc.start()
    loaded = PREPROCESS.load(path)
    digest = PREPROCESS.digest(loaded)
    windows = PREPROCESS.prepare(loaded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert loaded == path and len(digest) == 32 and windows.shape == (8, 8_000)
    assert peak < 8e6
    assert PREPROCESS.size(path) == 800
    pitches = [np.abs(np.fft.rfft(window)).argmax() * 2 for window in windows]
    assert pitches[0] == 200 and pitches[-1] == 790 and pitches == sorted(pitches)


def test_a_large_file_without_a_codec_is_told_by_what_it_looks_like(tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.preprocess.items.IN_MEMORY_BYTES", 100)
    path = tmp_path / "sound.m4a"
    path.write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom" + bytes(200))
    with pytest.raises(UnreadableItemError, match="MP4 or M4A") as caught:
        PREPROCESS.prepare(path)
    assert caught.value.kind == "unsupported" and "ffmpeg -i FILE FILE.flac" in caught.value.mend


@pytest.mark.parametrize("format_name", ["WAV", "AIFF", "MP3", "OGG"])
@pytest.mark.parametrize("large", [False, True])
def test_what_is_cut_off_is_told(format_name, large, tmp_path, monkeypatch):
    if large:  # read where it lies, not in memory
        monkeypatch.setattr("headstart.preprocess.items.IN_MEMORY_BYTES", 100)
    content = written(tone(3.0), format=format_name)
    path = tmp_path / "sound.bin"
    path.write_bytes(content)
    PREPROCESS.prepare(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableItemError, match="is cut off: it declares") as caught:
        PREPROCESS.prepare(path)
    assert caught.value.kind == "truncated"


def test_a_large_file_that_cannot_be_opened_is_told_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.preprocess.items.IN_MEMORY_BYTES", 100)
    path = tmp_path / "sound.wav"
    path.write_bytes(written(tone()))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(UnreadableItemError, match=r"sound\.wav: is no sound that can be read .*Permission denied"):
        PREPROCESS.prepare(path)


def test_a_wav_may_hold_more_chunks_and_may_not_know_its_length():
    content = written(tone(0.6))
    place = content.index(b"data")
    extra = b"LIST" + (5).to_bytes(4, "little") + b"words\0"
    assert declared_bytes(content[:place] + extra + content[place:]) == len(content) + len(extra)
    for length in (0, 0xFFFF_FFFF, 0x7FFF_F000):
        assert declared_bytes(content[: place + 4] + length.to_bytes(4, "little") + content[place + 8 :]) is None
    for other in (b"", b"RIFF", b"ID3", b"\xff\xfb", b"some text", written(tone(), format="FLAC")):
        assert declared_bytes(other) is None


def test_a_stream_that_does_not_know_its_length(tmp_path):
    content = bytearray(written(tone(), format="FLAC"))
    place = 8 + 13  # behind 'fLaC' and the block's head: 36 bits of the number of samples end at byte 18
    content[place] &= 0xF0
    content[place + 1 : place + 5] = b"\0\0\0\0"
    with open_sound(bytes(content)) as sound:
        assert sound.num_frames == 16_000
    np.testing.assert_array_equal(PREPROCESS.prepare(bytes(content)), PREPROCESS.prepare(written(tone(), format="FLAC")))


def test_batches_mark_what_is_not_there():
    few, many = PREPROCESS.prepare((tone(0.3), 16_000)), PREPROCESS.prepare((tone(1.0), 16_000))
    batch = PREPROCESS.collate([few, many])
    assert batch.shape == (2, 3, 8_000) and batch.dtype == np.float32
    assert np.isnan(batch[0, 1:]).all() and not np.isnan(batch[1]).any()
    assert [PREPROCESS.size((tone(seconds), 16_000)) for seconds in (0.3, 1.0)] == [100, 300]
    assert PREPROCESS.indifferent([(tone(), 16_000)] * 3).startswith("0 of 3 sounds")
    assert not PREPROCESS.indifferent([(tone(9.0), 16_000)])


def test_the_recipe_is_read_back_and_nothing_else():
    made = AudioPreprocess(rate_hz=8_000, window=4_000, least_dbfs=-30.0, short="repeat").with_fitting("head")
    assert preprocess_from_json(made.as_json(), lambda name: b"") == made
    assert made.fingerprint() != made.with_fitting("spread").fingerprint()
    for wrong in ({"rules": 99}, {"window": 3}, {"more": 1}, {"fitting": "middle"}):
        with pytest.raises(ArtifactError):
            preprocess_from_json(made.as_json() | wrong, lambda name: b"")
    with pytest.raises(SettingError, match="'tail'"):
        made.with_fitting("tail")


def test_what_is_kept_gives_the_same_windows_again():
    item = (sound_of("rising", 3), 8_000)
    kept = PREPROCESS.prepare(PREPROCESS.keep(item))
    assert PREPROCESS.compare(kept, kept.copy()) == ""
    assert "differ by up to" in PREPROCESS.compare(kept, kept + 0.1)
    assert "another shape" in PREPROCESS.compare(kept, kept[:1])


def test_silence_clipping_and_clicks_are_noticed():
    items = {
        "silent": (np.zeros(8_000, np.float32), 16_000),
        "clipped": (np.clip(tone(level=3.0), -1, 1), 16_000),
        "click": (tone(0.01), 16_000),
        "long": (tone(30.0), 16_000),
        "fine": (tone(), 16_000),
    }
    found = {finding.kind: finding for finding in PREPROCESS.notice(items)}
    assert {kind: finding.items for kind, finding in found.items()} == {
        "silence": ("silent",),
        "clipping": ("clipped",),
        "very_short": ("click",),
        "long_sounds": ("long",),
    }
    assert found["long_sounds"].severity == "info" and "1 of 5 sounds" in found["clipping"].message
    assert PREPROCESS.notice({"fine": items["fine"]}) == []


def test_what_a_page_shows_can_be_heard_and_seen():
    shown = PREPROCESS.illustrate((tone(9.0, 48_000), 48_000))
    kind, _, content = shown["sound"].partition(",")
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:audio/wav;base64" and rate == 8_000 and len(heard) == 32_000
    assert shown["thumbnail"].startswith("data:image/png;base64,")
    assert PREPROCESS.illustrate((np.zeros(5, np.float32), 8_000))["sound"].startswith("data:audio/wav")


def test_channels_of_opposite_phase_are_not_called_silent(tmp_path):
    one = tone()
    noise = np.random.default_rng(0).normal(0, 0.01, 16000).astype(np.float32)
    soundfile.write(tmp_path / "opposite.wav", np.stack([one, -one], 1), 16000)
    items = {
        "file": tmp_path / "opposite.wav",
        "array": (np.stack([one, -one], 1), 16000),
        "nearly": (np.stack([one, noise - one], 1), 16000),
        "half silent": (np.stack([one, 0 * one], 1), 16000),
        "equal": (np.stack([one, one], 1), 16000),
        "mono": (one, 16000),
        "silent": (np.zeros((16000, 2), np.float32), 16000),
    }
    found = {finding.kind: finding.items for finding in PREPROCESS.notice(items)}
    assert found == {"opposite_phase": ("file", "array", "nearly"), "silence": ("silent",)}


@pytest.mark.parametrize(
    "make",
    [
        lambda x: (x * 32768, 8000),
        lambda x: {"array": (x * 32768).tolist(), "sampling_rate": 8000},
        lambda x: (x * 2**31, 8000),
    ],
)
def test_samples_in_other_units_are_refused(make):
    recipe, tone = AudioPreprocess(rate_hz=8000, window=4000), np.sin(np.arange(8000) / 9) * 0.4
    with pytest.raises(UnreadableItemError, match="full scale"):
        recipe.prepare(make(tone))
    np.testing.assert_allclose(recipe.prepare((np.int16(tone * 32767), 8000)), recipe.prepare((tone, 8000)), atol=1e-4)
    assert recipe.prepare((tone * 4, 8000)).shape == (3, 4000)


def test_a_float_file_in_other_units_is_refused():
    stream = io.BytesIO()
    soundfile.write(stream, np.sin(np.arange(8000) / 9) * 12_000, 8000, format="WAV", subtype="FLOAT")
    with pytest.raises(UnreadableItemError, match="full scale"):
        AudioPreprocess(rate_hz=8000, window=4000).prepare(stream.getvalue())
