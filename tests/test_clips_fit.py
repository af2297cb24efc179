"""Clips from a folder to a saved model that predicts without torch; what stays on one side; what is refused, in words."""

import csv
import json
import re

import numpy as np
import onnxruntime
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

import headstart
from clip_files import counting, wander, write_clip, write_sound
from commands import run, run_here
from headstart.artifact.graph import Answer, assemble
from headstart.backbones import locate
from headstart.backbones.catalog import find_source
from headstart.data.rows import ReadOptions
from headstart.data.source import read, read_with_findings
from headstart.errors import BackboneError, DataError, SettingError
from headstart.features import compile_prefix, extract
from headstart.features.clips import ClipPrefix, suit_prefix
from headstart.features.extract import FLIPPED, PLAIN
from headstart.heads.linear import LinearHead
from headstart.inference import open_session
from headstart.preprocess.fusion import named_arrays
from headstart.records import Sample

LABELS = ("checks", "rings")
PER_CLASS = 12


@pytest.fixture(scope="module")
def clips(draw, tmp_path_factory):
    """A folder of 2 classes of 10 clips, a GIF and a picture each, and a file that is cut off."""
    folder = tmp_path_factory.mktemp("data") / "clips"
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for number in range(PER_CLASS - 2):
            write_clip(folder / label / f"{number}.mp4", wander(draw(label, number), 16, seed=number))
        frames = list(wander(draw(label, 20), 12))
        frames[0].save(folder / label / "moving.gif", save_all=True, append_images=frames[1:])
        draw(label, 21).save(folder / label / "still.png")
    whole = (folder / "rings" / "0.mp4").read_bytes()
    (folder / "rings" / "broken.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def fitted(clips, prefix, tmp_path_factory):
    """The folder of a model of `clips`, and what its fit left."""
    out = tmp_path_factory.mktemp("models") / "clips.hs"
    headstart.fit(clips, out=out)
    return out


@pytest.fixture(scope="module")
def clip_prefix(clips, prefix):
    return suit_prefix(prefix, sorted(clips.rglob("*.mp4")))


def sample(path):
    return Sample(id=str(path), item=path)


def test_a_folder_of_clips_and_pictures_becomes_a_model_with_evidence(fitted):
    report = headstart.load(fitted).report.content
    summary = report["summary"]
    assert (summary["modality"], summary["strategy"]) == ("image", "extract")
    assert summary["counts"]["unreadable"] == 1 and summary["test"]["accuracy"] > 0.7
    assert "not tuned on clips" in summary["gate"]["reason"]
    assert report["preprocess"]["kind"] == "clip" and report["preprocess"]["least_frames"] == 8
    (unreadable,) = [finding for finding in report["data"]["findings"] if "rings/broken.mp4" in finding["items"]]
    assert unreadable["kind"] == "truncated" and "cut off" in unreadable["message"]
    page = (fitted / "report.html").read_text(encoding="utf-8")
    assert "least_frames" in page or "least frames" in page
    assert summary["counts"]["clips"] == summary["counts"]["train"] + summary["counts"]["test"] - len(LABELS)
    assert re.search(r"<h1>[^<]* images and clips [^<]*labelled right", page)
    assert "how images and clips become its input" in page
    assert "new.mp4" in page and "frame geometry" in page and "image geometry" not in page


def test_a_clip_is_one_item_on_one_side_of_the_split(fitted, clips):
    with (fitted / "splits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["item"] for row in rows]
    assert len(names) == len(set(names)) and sum(name.endswith(".mp4") for name in names) >= 2 * (PER_CLASS - 2)
    assert len(headstart.load(fitted).predict(clips / "rings" / "1.mp4")) == 1


def test_new_clips_of_every_kind_get_their_labels(fitted, draw, tmp_path):
    model = headstart.load(fitted)
    frames = [list(wander(draw(label, 40), 16, seed=40)) for label in LABELS]
    paths = [write_clip(tmp_path / f"{label}.mkv", few) for label, few in zip(LABELS, frames, strict=True)]
    found = model.predict(paths)
    assert [each.label for each in found] == list(LABELS)
    arrays = [np.stack([np.asarray(frame) for frame in few]) for few in frames]
    assert [each.label for each in model.predict(arrays)] == list(LABELS)
    (still,) = model.predict(draw(LABELS[1], 41))
    assert still.label in LABELS
    # Beside others, frames that fill up a batch change nothing.
    together = model.predict([paths[0], draw(LABELS[1], 41), paths[1]])
    assert together[0].probability == pytest.approx(found[0].probability, abs=1e-5)
    assert together[1].probability == pytest.approx(still.probability, abs=1e-5)
    (tmp_path / "odd.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"odd\.mp4"):
        model.predict(tmp_path)


def test_a_cold_process_predicts_a_clip_without_torch(fitted, clips, run_python):
    code = """
import sys
import headstart
found = headstart.load(sys.argv[1]).predict([sys.argv[2], sys.argv[3]])
assert len(found) == 2
loaded = [name for name in ("torch", "timm", "transformers", "sklearn", "onnx", "typer") if name in sys.modules]
assert not loaded, loaded
assert "av" in sys.modules
"""
    done = run_python(code, fitted, clips / "rings" / "0.mp4", clips / "checks" / "moving.gif")
    assert done.returncode == 0, done.stderr


def test_the_command_line_labels_a_clip(fitted, clips):
    done = run_here("predict", fitted, clips / "rings" / "0.mp4", "--json")
    (found,) = json.loads(done.stdout)["predictions"]
    assert found["label"] == "rings" and done.returncode == 0


def test_missing_av_is_told_with_the_command(fitted, clips, tmp_path):
    (tmp_path / "av.py").write_text("raise ModuleNotFoundError('no av', name='av')\n")
    import os

    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("predict", fitted, clips / "rings" / "0.mp4", PYTHONPATH=path)
    assert done.returncode == 2 and "[video]" in done.stderr


def test_evaluate_and_export_take_clips(fitted, clips, tmp_path):
    assert headstart.evaluate(fitted, clips).metrics["accuracy"] > 0.7
    headstart.export(fitted, tmp_path / "clips.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "clips.onnx")
    assert [given.name for given in session.get_inputs()] == ["frames"]
    assert session.get_inputs()[0].shape[2:] == [3, 224, 224]


# Features


def test_a_picture_has_the_same_features_as_a_clip_of_it(prefix, clip_prefix, draw):
    """The network is the same, compiled once."""
    assert isinstance(clip_prefix, ClipPrefix) and clip_prefix.model_path == prefix.model_path
    picture = draw("rings", 50)
    one = prefix(prefix.spec.preprocess.collate([prefix.spec.preprocess.prepare(picture)]))
    recipe = clip_prefix.spec.preprocess
    many = np.stack([np.asarray(picture)] * 5)
    found = clip_prefix(recipe.collate([recipe.prepare(picture), recipe.prepare(many)]))
    assert np.allclose(found, one, atol=1e-4)


def test_features_are_the_mean_over_frames(prefix, clip_prefix, draw):
    picture = prefix.spec.preprocess
    frames = [np.asarray(frame) for frame in wander(draw("rings", 51), 5)]
    recipe = clip_prefix.spec.preprocess
    (found,) = clip_prefix(recipe.collate([recipe.prepare(np.stack(frames))]))
    each = prefix(picture.collate([picture.prepare(frame) for frame in frames]))
    assert np.allclose(found, each.mean(0), atol=1e-4)


def test_mirrored_clips_are_mirrored_frame_by_frame(clip_prefix, draw):
    frames = np.stack([np.asarray(frame) for frame in wander(draw("rings", 52), 3)])
    samples = [Sample(id="as it is", item=frames), Sample(id="mirrored", item=frames[:, :, ::-1].copy())]
    table = extract(clip_prefix, clip_prefix.spec.preprocess, samples, views=(PLAIN, FLIPPED))
    as_is, mirrored = table.vectors
    same = np.abs(as_is - mirrored[::-1]).mean()
    assert same < 0.1 * np.abs(as_is - mirrored).mean()


def test_known_clips_are_not_decoded_again(clip_prefix, clips, empty_cache):
    samples = [sample(path) for path in sorted(clips.rglob("[0-3].mp4"))]
    first = extract(clip_prefix, clip_prefix.spec.preprocess, samples)
    again = extract(clip_prefix, clip_prefix.spec.preprocess, samples)
    assert (first.misses, again.misses, again.hits) == (len(samples), 0, len(samples))
    assert np.array_equal(first.vectors, again.vectors)


@pytest.fixture
def nets(tmp_path, compiling_here):
    """Two tiny image backbones as one, by name."""
    names = ("test_resnet", "test_efficientnet")
    for name in names:
        save_file(timm.create_model(name).state_dict(), tmp_path / f"{name}.safetensors")
    return "+".join(f"file:{tmp_path / name}.safetensors#{name}" for name in names)


def test_several_backbones_take_clips(nets, clips):
    """The saved network, an input of frames for each, answers as the head on their features did."""
    pictures = compile_prefix(locate(nets), image_size=64).wait()
    prefix = suit_prefix(pictures, [clips / "rings" / "0.mp4"])
    assert [type(part) for part in prefix.parts] == [ClipPrefix, ClipPrefix]
    recipe = prefix.spec.preprocess
    batch = recipe.collate([recipe.prepare(clips / "rings" / name) for name in ("0.mp4", "still.png")])
    features = prefix(batch)
    weight = np.random.default_rng(0).normal(size=(2, prefix.spec.width)).astype(np.float32)
    answer = Answer(
        width=prefix.spec.width,
        inputs=("frames.1", "frames.2"),
        columns=(slice(0, prefix.spec.width),),
        flips=True,
        clips=True,
        head=LinearHead(kind="ridge", weight=weight, bias=np.zeros(2, np.float32)),
        temperatures=np.ones(2),
        task="multi",
    )
    session = open_session(assemble([part.model_path for part in prefix.parts], answer), num_threads=1)
    found = session.run(None, named_arrays(recipe.input_name, recipe, batch))[0]
    mirrored = prefix(tuple(part[..., ::-1].copy() for part in batch))
    expected = 1 / (1 + np.exp(-((features + mirrored) / 2) @ weight.T))
    assert np.allclose(found, expected, atol=1e-4)


def test_a_model_of_clips_is_a_source_for_another(fitted):
    assert find_source(f"artifact:{fitted}").image_size == 224


def test_embed_and_check_take_clips(clips):
    table = headstart.embed(clips)
    assert len(table.ids) == 2 * PER_CLASS and table.failures.keys() == {"rings/broken.mp4"}
    assert table.features("last").shape == (2 * PER_CLASS, 1280)


# What stays together


def test_near_copies_of_a_clip_stay_together(draw, tmp_path, prefix):
    """Coded anew at another size and rate, and cut shorter in time."""
    folder = tmp_path / "data"
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for number in range(12):
            write_clip(folder / label / f"{number}.mp4", wander(draw(label, number), 16, seed=number))
    frames = list(wander(draw("rings", 3), 16, seed=3))
    write_clip(
        folder / "rings" / "again.webm", [f.resize((128, 96)) for f in frames], codec="libvpx-vp9", rate=15, crf="15", b="0"
    )
    write_clip(folder / "rings" / "shorter.mp4", frames[1:])
    found = [finding for finding in headstart.check(folder) if finding.kind == "near_duplicate"]
    together = {item for finding in found for item in finding.items}
    assert {"rings/3.mp4", "rings/again.webm", "rings/shorter.mp4"} <= together


def test_frames_of_one_clip_stay_together_by_their_group(draw, tmp_path, prefix):
    """Pictures cut out of clips, and the clips, in a table with a column of groups."""
    lines = ["path,label,group"]
    for label in LABELS:
        for number in range(6):
            frames = list(wander(draw(label, number), 12, seed=number))
            names = [f"{label}{number}.mp4", *(f"{label}{number}-{place}.png" for place in (0, 5, 11))]
            write_clip(tmp_path / names[0], frames)
            for name, place in zip(names[1:], (0, 5, 11), strict=True):
                frames[place].save(tmp_path / name)
            lines += [f"{name},{label},{label}{number}" for name in names]
    (tmp_path / "items.csv").write_text("\n".join(lines) + "\n")
    headstart.fit(tmp_path / "items.csv", out=tmp_path / "m.hs", strategy="extract", group_column="group")
    with (tmp_path / "m.hs" / "splits.csv").open(newline="") as file:
        sides = {}
        for row in csv.DictReader(file):
            sides.setdefault(row["item"].rpartition("/")[2].partition("-")[0].partition(".")[0], set()).add(row["split"])
    assert len(sides) == 12 and all(len(both) == 1 for both in sides.values())


# What is refused


@pytest.mark.parametrize("strategy", ["last:1", "full"])
def test_tuning_on_clips_is_refused_in_words(clips, strategy, prefix, tmp_path):
    with pytest.raises(SettingError, match="not tuned on clips") as error:
        headstart.fit(clips, out=tmp_path / "m.hs", strategy=strategy)
    assert "--strategy extract" in error.value.mend and not (tmp_path / "m.hs").exists()


def test_a_head_with_hidden_layers_trains_on_clips(clips, tmp_path):
    model = headstart.fit(clips, out=tmp_path / "m.hs", head="mlp", strategy="extract", epochs=2)
    assert model.predict(clips / "rings" / "0.mp4")[0].label in LABELS


def test_whole_numbers_are_refused_for_clips(clips, tmp_path, prefix):
    with pytest.raises(SettingError, match="frames of clips are computed in float32"):
        headstart.fit(clips, out=tmp_path / "m.hs", strategy="extract", precision="int8")


@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "mfcc"])
def test_a_backbone_for_other_items_is_refused_with_suitable_ones(name):
    with pytest.raises(BackboneError, match="these are image items") as error:
        locate(name, modality="image")
    assert "efficientnet-lite0" in error.value.expected


def test_a_model_of_pictures_refuses_a_clip(model, clips):
    with pytest.raises(DataError, match="is a clip"):
        model.predict(clips / "rings" / "0.mp4")


def test_a_model_of_pictures_reads_the_first_frame_of_an_animated_one(model, clips):
    with Image.open(clips / "rings" / "moving.gif") as picture:
        first = picture.convert("RGB")
    moving, still = model.predict([clips / "rings" / "moving.gif", first])
    assert moving.probability == pytest.approx(still.probability, abs=1e-5)


def test_mixed_kinds_of_files_are_told(tmp_path):
    for label in LABELS:
        (tmp_path / label).mkdir()
        write_clip(tmp_path / label / "a.mp4", counting(2))
        (tmp_path / label / "b.png").write_bytes(b"")
        (tmp_path / label / "c.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"4 image \(2 of them video\), 2 audio, by their suffixes\.") as error:
        read(tmp_path)
    assert "pictures or clips" in error.value.expected
    assert read_with_findings(tmp_path, ReadOptions(modality="image")).dataset.modality == "image"


def test_videos_of_sound_alone_are_called_what_their_names_say(tmp_path):
    """Which of them hold only sound would take a look into each file."""
    for label in LABELS:
        (tmp_path / label).mkdir()
        write_sound(tmp_path / label / "a.mp4")
        (tmp_path / label / "b.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 (video|audio), 2 (audio|video), by their suffixes\.") as error:
        read(tmp_path)
    assert "ffmpeg -i FILE FILE.flac" in error.value.mend


def test_clips_of_other_modalities_are_not_there(tmp_path):
    for label in LABELS:
        (tmp_path / label).mkdir()
        write_clip(tmp_path / label / "a.mp4", counting(2))
    with pytest.raises(DataError, match="no audio file"):
        read(tmp_path, modality="audio")
