"""Sounds from a folder to a saved model that predicts without torch; tuning; what is refused, in words."""

import json
import shutil
import tarfile

import numpy as np
import pytest
import soundfile

import headstart
from headstart.data.rows import ReadOptions
from headstart.data.source import read, read_with_findings
from headstart.errors import BackboneError, DataError, SettingError
from headstart.preprocess.audio import AudioPreprocess
from headstart.tuning.sound_augment import SoundAugmentation
from sound_models import KINDS, RATE, save_encoder, sound_of, write_sounds

NEEDS_NOTHING = ("torch", "transformers", "timm", "sklearn", "typer", "jinja2", "onnx")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A folder of 4 classes of 14 sounds, two of which are odd: one silent, one no sound at all."""
    folder = write_sounds(tmp_path_factory.mktemp("data") / "sounds", per_class=14)
    soundfile.write(folder / "hiss" / "silent.wav", np.zeros(RATE), RATE)
    (folder / "clicks" / "broken.flac").write_bytes(b"no sound")
    return folder


@pytest.fixture(scope="module")
def fitted(sounds, tmp_path_factory):
    """The folder of a model of `sounds` on MFCC."""
    out = tmp_path_factory.mktemp("models") / "sounds.hs"
    headstart.fit(sounds, out=out, backbone="mfcc", strategy="extract")
    return out


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny wav2vec 2.0, by name."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    save_encoder("wav2vec2-stable", folder)
    return f"file:{folder}"


def test_a_folder_becomes_a_model_with_evidence(fitted):
    model = headstart.load(fitted)
    summary = model.report.content["summary"]
    assert (summary["modality"], summary["backbone"], summary["strategy"]) == ("audio", "mfcc", "extract")
    assert summary["counts"]["unreadable"] == 1
    assert model.labels == tuple(sorted(KINDS)) and summary["test"]["accuracy"] > 0.7
    kinds = {finding["kind"]: finding for finding in model.report.content["data"]["findings"]}
    assert kinds["silence"]["items"] == ["hiss/silent.wav"]
    assert kinds["unreadable"]["items"] == ["clicks/broken.flac"]


def test_new_sounds_of_every_kind_of_item_get_their_labels(fitted, tmp_path):
    model = headstart.load(fitted)
    new = {kind: sound_of(kind, 77) for kind in KINDS}
    paths = []
    for kind, samples in new.items():
        paths.append(tmp_path / f"{kind}.flac")
        soundfile.write(paths[-1], samples, RATE)
    labels = [found.label for found in model.predict(paths)]
    assert sum(found == kind for found, kind in zip(labels, KINDS, strict=True)) >= 3
    assert [found.label for found in model.predict([str(path) for path in paths])] == labels
    assert [found.label for found in model.predict([(samples, RATE) for samples in new.values()])] == labels
    (one,) = model.predict((new["hiss"], RATE))
    (again,) = model.predict([{"array": new["hiss"], "sampling_rate": RATE}])
    assert one.label == "hiss" and one.probabilities == again.probabilities
    assert len(model.predict(tmp_path)) == len(KINDS)
    with pytest.raises(DataError, match="odd.wav"):
        (tmp_path / "odd.wav").write_bytes(b"RIFF")
        model.predict(tmp_path)


def test_a_long_sound_predicts_as_it_does_alone(fitted):
    """Windows that fill up a batch change nothing."""
    model = headstart.load(fitted)
    items = [(sound_of("rising", 5, seconds=seconds), RATE) for seconds in (0.2, 1.0, 6.0)]
    together = model.predict(items)
    for alone, found in zip((model.predict([item])[0] for item in items), together, strict=True):
        assert found.label == alone.label and found.probability == pytest.approx(alone.probability, abs=1e-4)


def test_prediction_from_a_cold_process_needs_no_torch(fitted, run_python, tmp_path):
    soundfile.write(tmp_path / "new.wav", sound_of("clicks", 90), RATE)
    code = "import sys; from headstart.cli import main; sys.argv[1:] = ['predict', *sys.argv[1:], '--json']\n"
    code += "try: main()\nexcept SystemExit as end: assert not end.code\n"
    code += f"found = [name for name in {NEEDS_NOTHING!r} if name in sys.modules]\nassert not found, found"
    done = run_python(code, fitted, tmp_path / "new.wav")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["label"] == "clicks"


def test_the_page_plays_the_worst_mistakes(fitted, sounds):
    from headstart.report.page import render_report

    content = headstart.load(fitted).report.content
    shown = AudioPreprocess().illustrate(sounds / "hiss" / "1.wav")
    wrong = {"item": "hiss/1.wav", "label": "hiss", "predicted": "clicks", "probability": 0.9}
    page = render_report(content | {"evaluation": content["evaluation"] | {"mistakes": [wrong | shown]}})
    assert f'<audio controls preload="none" src="{shown["sound"]}"' in page and shown["thumbnail"] in page
    assert "media-src data:" in page
    odd = wrong | {"sound": 'data:audio/wav;base64,AAAA" onerror="alert(1)'}
    page = render_report(content | {"evaluation": content["evaluation"] | {"mistakes": [odd]}})
    assert "<audio" not in page and "onerror" not in page


def test_tables_archives_and_objects_of_sounds(sounds, tmp_path):
    lines = ["audio,label", *(f"{sounds / kind / '1.wav'},{kind}" for kind in KINDS)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    assert read(tmp_path / "table.csv").modality == "audio"
    with tarfile.open(tmp_path / "sounds.tar", "w") as archive:
        archive.add(sounds, "sounds")
    assert read(tmp_path / "sounds.tar", unpack_root=tmp_path / "unpacked").modality == "audio"
    pairs = [((sound_of(kind, number), RATE), kind) for kind in KINDS for number in range(2)]
    assert read(pairs).modality == "audio"
    named = [({"array": sound_of(kind, 0), "sampling_rate": RATE, "path": None}, kind) for kind in KINDS]
    dataset = read(named)
    assert dataset.modality == "audio" and AudioPreprocess().prepare(dataset.samples[0].item).shape[1] == 16_000
    content = [((sounds / kind / "1.wav").read_bytes(), kind) for kind in KINDS]
    assert read(content).modality == "audio"
    table = headstart.embed([item for item, _ in pairs], backbone="mfcc")
    assert table.features("last").shape == (8, 120)


def test_mixed_folders_and_other_modalities_are_told(sounds, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(sounds, mixed)
    for number in range(30):
        (mixed / "hiss" / f"{number}.jpg").write_bytes(b"a picture")
        (mixed / "hiss" / f"{number}.txt").write_text("a text")
    with pytest.raises(DataError, match="mixes files of different kinds: 58 audio, 30 image, 30 text") as caught:
        read(mixed)
    assert "--modality audio" in caught.value.mend
    assert len(read_with_findings(mixed, ReadOptions(modality="audio")).dataset.samples) == 58
    for name in ("efficientnet-lite0", "all-minilm-l6-v2"):
        with pytest.raises(BackboneError, match="and these are audio items") as refused:
            headstart.fit(sounds, backbone=name)
        assert "speaker, speech-embedding, mfcc, hf:…" in refused.value.expected


def test_sounds_without_a_codec_are_listed_once_with_what_converts_them(tmp_path):
    for kind in KINDS[:2]:
        (tmp_path / kind).mkdir()
        for number in range(3):
            content = b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom" + bytes([number])
            (tmp_path / kind / f"{number}.m4a").write_bytes(content)
    for _ in range(2):  # the second time, what the store remembers tells no less
        (found,) = headstart.check(tmp_path, backbone="mfcc")
        assert found.severity == "error" and len(set(found.items)) == len(found.items) == 6
        assert found.mend == "convert it: ffmpeg -i FILE FILE.flac"
    with pytest.raises(DataError, match="none of the 6 items can be read") as refused:
        headstart.fit(tmp_path, backbone="mfcc")
    assert "ffmpeg -i FILE FILE.flac" in refused.value.mend


def test_a_sound_backbone_refuses_pictures(pictures):
    with pytest.raises(BackboneError, match="'mfcc' takes audio items, and these are image items"):
        headstart.fit(pictures, backbone="mfcc")


def test_what_has_no_weights_is_not_tuned(sounds):
    with pytest.raises(SettingError, match="mfcc has no weights that could be tuned"):
        headstart.fit(sounds, backbone="mfcc", strategy="full")


@pytest.mark.parametrize(
    "strategy",
    [pytest.param("last:1", marks=pytest.mark.long), *(pytest.param(n, marks=pytest.mark.long) for n in ("full", "lora"))],
)
def test_an_encoder_is_tuned_saved_and_taken_up_again(strategy, encoder, sounds, tmp_path):
    out = tmp_path / "tuned.hs"
    model = headstart.fit(sounds, out=out, backbone=encoder, strategy=strategy, epochs=1, batch_size=16)
    assert model.report.content["summary"]["strategy"] == strategy
    assert (out / "tail.safetensors").is_file()
    paths = [sounds / kind / "3.wav" for kind in KINDS]
    again = headstart.load(out).predict(paths)
    assert [found.probabilities for found in again] == [found.probabilities for found in model.predict(paths)]
    if strategy == "last:1":
        table = headstart.embed(sounds, backbone=f"artifact:{out}")
        assert table.spec.info.tuned and len(table.ids) == 57


def test_copies_of_a_recording_are_told(tmp_path):
    sounds = [sound_of(kind, number) for kind in KINDS for number in range(4)]
    for number, form in ((1, "mp3"), (6, "ogg")):
        soundfile.write(tmp_path / f"{number}.{form}", 0.5 * sounds[number], RATE)
    items = [*((samples, RATE) for samples in sounds), tmp_path / "1.mp3", tmp_path / "6.ogg"]
    found = AudioPreprocess().near_copies(items)
    assert {(1, 16), (6, 17)} <= set(found) and not [pair for pair in found if pair[0] // 4 != pair[1] // 4 and pair[1] < 16]
    steady = [(np.zeros(RATE, np.float32), RATE)] * 2 + [(np.full(9, 0.1, np.float32), RATE)] * 2
    assert AudioPreprocess().near_copies(steady) == []


def test_views_stray_as_far_as_they_may():
    windows = np.stack([sound_of("rising", 1, seconds=3.0)[:8_000]] * 2)
    windows[1, 4_000:] = np.nan
    augmentation = SoundAugmentation(seed=1)
    names = augmentation.view_names(3)
    views = [augmentation(windows, b"a" * 32, name) for name in names]
    np.testing.assert_array_equal(views[0], augmentation(windows, b"a" * 32, names[0]))
    assert all(np.array_equal(np.isnan(view), np.isnan(windows)) for view in views)
    assert not np.allclose(views[0][0], views[1][0]) and views[0].dtype == np.float32
    none = SoundAugmentation(gain=0, noise=0, shift=0, time_mask=0, frequency_mask=0)
    np.testing.assert_allclose(none(windows, b"a" * 32, "x")[0], windows[0], atol=1e-6)
    louder = SoundAugmentation(gain=6, noise=0, shift=0, time_mask=0, frequency_mask=0)
    ratio = np.linalg.norm(louder(windows, b"b" * 32, "y")[0]) / np.linalg.norm(windows[0])
    assert 0.5 <= ratio <= 2.0 and ratio != pytest.approx(1.0)
    with pytest.raises(SettingError, match="time_mask is 2"):
        SoundAugmentation(time_mask=2)
