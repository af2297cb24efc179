"""A saved model in use: every kind of item, the same answer everywhere, and nothing needed that trains."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from safetensors.numpy import load_file
from scipy.special import expit, softmax

from headstart import fit, load
from headstart.cli.predict import TableWords, _name_items
from headstart.errors import ArtifactError, DataError
from headstart.model.items import expand
from headstart.model.model import Model
from headstart.preprocess.image import ImagePreprocess
from headstart.records import Prediction


def answers_of(predictions):
    return [(found.label, found.probability, found.probabilities) for found in predictions]


# Answers


def test_the_model_tells_new_pictures_apart(model, draw):
    truth = [label for label in model.labels for _ in range(5)]
    found = model.predict([draw(label, 100 + number) for number, label in enumerate(truth)])
    assert [prediction.label for prediction in found] == truth
    for prediction in found:
        assert isinstance(prediction, Prediction)
        values = list(prediction.probabilities.values())
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-5)
        assert set(prediction.probabilities) == set(model.labels)
        assert next(iter(prediction.probabilities.items())) == (prediction.label, prediction.probability)
        assert (prediction.labels, prediction.value, prediction.set, prediction.outlier) == ((), None, (), False)


def recomputed(folder, prefix, items):
    """Answers in numpy, from the saved preprocess, the compiled backbone and the saved head; the network is not used."""
    manifest = json.loads((folder / "headstart.json").read_text())
    tensors = load_file(folder / "head.safetensors")
    preprocess = ImagePreprocess.from_json(manifest["preprocess"])
    batch = np.stack([preprocess(item) for item in items])
    features = prefix(batch)
    if "flip" in manifest["views"]:
        features = (features + prefix(np.ascontiguousarray(batch[..., ::-1]))) / 2
    scores = features[:, prefix.spec.columns(manifest["block"])] @ tensors["weight"].T + tensors["bias"]
    finish = {"single": lambda x: softmax(x, axis=1), "multi": expit, "value": lambda x: x}[manifest["task"]]
    return manifest, finish(scores / tensors["temperatures"])


def test_training_and_prediction_see_the_same(artifact, model, prefix, draw):
    """What `predict` says follows from the head that was fitted on the features, by way of the saved preprocess."""
    items = [draw(label, 200 + number) for number, label in enumerate(model.labels)]
    items += [Image.blend(items[0].resize((90, 90)), items[1].resize((90, 90)), share) for share in (0.4, 0.5, 0.6)]
    manifest, wanted = recomputed(artifact, prefix, items)
    for prediction, row in zip(model.predict(items), wanted, strict=True):
        for label, probability in zip(manifest["labels"], row, strict=True):
            assert prediction.probabilities[label] == pytest.approx(probability, abs=1e-4)


@pytest.fixture(scope="module")
def other_tasks(draw, prefix, tmp_path_factory):
    """Models of the two other tasks: brightness as a number, and two labels that may go together."""
    random = np.random.default_rng(0)
    values, several = [], []
    for number in range(48):
        level = float(random.uniform(0.1, 1))
        pixels = np.asarray(draw("blobs", number)).astype(np.float64)
        values.append((Image.fromarray((pixels * level).astype(np.uint8)), level))
        striped, mirrored = number % 2 == 0, number % 4 < 2
        picture = draw("stripes" if striped else "blobs", 300 + number)
        framed = ImageOps.expand(picture, 25, "red") if mirrored else picture
        labels = [label for label, there in (("striped", striped), ("framed", mirrored)) if there]
        several.append((framed, labels))
    folder = tmp_path_factory.mktemp("tasks")
    return {
        "value": (fit(values, task="value", strategy="extract", geometry="squash", out=folder / "value.hs"), values),
        "multi": (fit(several, task="multi", strategy="extract", geometry="squash", out=folder / "multi.hs"), several),
    }


def test_numbers_are_predicted_as_the_head_computes_them(other_tasks, prefix):
    model, items = other_tasks["value"]
    pictures, levels = zip(*items, strict=True)
    _, wanted = recomputed(model.folder, prefix, pictures)
    found = model.predict(list(pictures))
    np.testing.assert_allclose([prediction.value for prediction in found], wanted[:, 0], atol=1e-3)
    assert np.corrcoef([prediction.value for prediction in found], levels)[0, 1] > 0.9
    assert {(prediction.label, prediction.probability, prediction.labels) for prediction in found} == {(None, None, ())}
    assert str(model.report).startswith("mae 0.")


def test_labels_at_or_above_their_thresholds_are_given(other_tasks, prefix):
    model, items = other_tasks["multi"]
    pictures, truth = zip(*items, strict=True)
    manifest, wanted = recomputed(model.folder, prefix, pictures)
    assert manifest["labels"] == ["framed", "striped"]
    found = model.predict(list(pictures))
    for prediction, row in zip(found, wanted, strict=True):
        clear = np.abs(row - manifest["thresholds"]) > 1e-3
        for label, probability, threshold, sure in zip(manifest["labels"], row, manifest["thresholds"], clear, strict=True):
            assert prediction.probabilities[label] == pytest.approx(probability, abs=1e-4)
            assert not sure or (label in prediction.labels) == (probability >= threshold)
        assert list(prediction.labels) == [label for label in prediction.probabilities if label in prediction.labels]
    right = sum(set(prediction.labels) == set(labels) for prediction, labels in zip(found, truth, strict=True))
    assert right > 40


# Items


def test_every_kind_of_item_gives_the_same_answer(model, draw, as_bytes, tmp_path):
    picture = draw("rings", 500)
    path = tmp_path / "some" / "picture.png"
    path.parent.mkdir()
    picture.save(path)
    (path.parent / "notes.txt").write_text("no picture, and not named as one")
    rgba = picture.convert("RGBA")
    kinds = [path, str(path), path.parent, as_bytes(picture), np.asarray(picture), picture, rgba, bytearray(as_bytes(picture))]
    one_by_one = [model.predict(item) for item in kinds]
    assert all(len(found) == 1 for found in one_by_one)
    together = model.predict(kinds)
    assert len(together) == len(kinds)
    first = together[0]
    for found in (*together, *(found for (found,) in one_by_one)):
        assert found.label == first.label == "rings"
        for label, probability in first.probabilities.items():
            assert found.probabilities[label] == pytest.approx(probability, abs=1e-6)
    assert [found.item for found in together[:3]] == [str(path)] * 3
    assert [found.item for found in together[3:6]] == [
        f"3: an item of {len(as_bytes(picture))} bytes",
        f"4: an array of shape ({picture.height}, {picture.width}, 3) and type uint8",
        f"5: an image of mode RGB and size {picture.width}x{picture.height}",
    ]


def test_answers_come_in_the_order_of_the_items_whatever_stands_beside_them(model, pictures):
    paths = sorted(pictures.rglob("1*.*"))
    together = model.predict(paths)
    assert [found.item for found in together] == [str(path) for path in paths]
    shuffled = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    again = {found.item: found for found in model.predict(tuple(shuffled))}
    for found in together:
        assert again[found.item].label == found.label
        assert again[found.item].probability == pytest.approx(found.probability, abs=1e-5)


def test_a_folder_is_all_items_below_it_in_a_fixed_order(model, draw, tmp_path):
    for name in ("10.png", "2.PNG", "deeper/1.jpg", ".hidden.png"):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        draw("rings", 3).save(tmp_path / "new" / name)
    (tmp_path / "new" / "table.csv").write_text("a,b\n")
    found = [Path(prediction.item).relative_to(tmp_path / "new").as_posix() for prediction in model.predict(tmp_path / "new")]
    assert found == ["10.png", "2.PNG", "deeper/1.jpg"]
    assert [name for name, _ in expand([tmp_path / "new", "x.jpg"], "image")][-1] == "x.jpg"


def test_a_folder_without_items_among_others_is_an_unreadable_item(model, draw, tmp_path):
    draw("rings", 0).save(tmp_path / "x.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.xyz").write_bytes(b"1")
    items = [tmp_path / "empty", str(tmp_path / "other"), tmp_path / "x.png"]
    assert len(expand(items, "image")) == 3
    with pytest.raises(DataError, match="2 items cannot be read"):
        model.predict(items)
    assert len(model.predict(items, unreadable="skip")) == 1
    assert [len(expand([tmp_path / "empty"], "image", among_others=several)) for several in (False, True)] == [0, 1]
    assert expand([str(tmp_path), str(tmp_path / "empty")], "text") == [
        (str(tmp_path), str(tmp_path)),
        (str(tmp_path / "empty"), str(tmp_path / "empty")),
    ]


def test_unreadable_items_are_all_named_or_left_out(model, draw, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    picture = draw("rings", 1)
    items = [picture, tmp_path / "empty.png", tmp_path / "text.jpg", tmp_path / "nowhere.png", 7, picture]
    with pytest.raises(DataError, match="4 items cannot be read") as caught:
        model.predict(items)
    for name in ("empty.png", "text.jpg", "nowhere.png: there is no such file", "4: an object of type int"):
        assert name in caught.value.what
    assert "unreadable='skip'" in caught.value.mend and "headstart predict" in caught.value.mend
    assert "--json names these beside the answers" in caught.value.mend
    found = model.predict(items, unreadable="skip")
    assert [prediction.item[:2] for prediction in found] == ["0:", "5:"]
    with pytest.raises(DataError, match="1 item cannot be read"):
        model.predict(tmp_path / "nowhere.png")
    assert model.predict([tmp_path / "empty.png"], unreadable="skip") == []
    assert model.answers(items).unreadable.keys() == {str(item) for item in items[1:4]} | {"4: an object of type int"}


def test_a_long_list_of_unreadable_items_is_cut_short(model):
    with pytest.raises(DataError, match="50 items cannot be read") as caught:
        model.predict([f"nowhere/{number}.png" for number in range(50)])
    assert "… and 30 more" in caught.value.what
    assert "nowhere/19.png" in caught.value.what
    assert "nowhere/20.png" not in caught.value.what


def test_nothing_to_predict_is_told_so(model, tmp_path):
    for nothing in ([], (), tmp_path):
        with pytest.raises(DataError, match="there is no item to predict"):
            model.predict(nothing)


# Saving and opening


def test_a_saved_copy_answers_the_same(model, draw, tmp_path):
    target = model.save(tmp_path / "deep" / "er" / "copy.hs")
    assert target == tmp_path / "deep" / "er" / "copy.hs"
    assert sorted(path.name for path in target.parent.iterdir()) == ["copy.hs"]
    for path in model.folder.iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes()
    items = [draw(label, 7) for label in model.labels]
    assert answers_of(load(target).predict(items)) == answers_of(model.predict(items))
    assert (target.stat().st_mode & 0o777) == 0o755


@pytest.mark.parametrize("what", ["file", "folder", "link to a folder", "folder with a file like ours"])
def test_saving_over_something_else_is_refused_and_leaves_it(model, tmp_path, what):
    target = tmp_path / "target"
    match what:
        case "file":
            target.write_text("mine")
        case "folder":
            target.mkdir()
            (target / "thesis.txt").write_text("mine")
        case "link to a folder":
            (tmp_path / "elsewhere").mkdir()
            (tmp_path / "elsewhere" / "thesis.txt").write_text("mine")
            target.symlink_to(tmp_path / "elsewhere")
        case _:
            target.mkdir()
            (target / "model.onnx").write_text("mine")
    before = sorted((path, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*"))
    with pytest.raises(ArtifactError, match="exists and is not a saved model") as caught:
        model.save(target)
    assert "choose another path" in caught.value.mend
    assert sorted((path, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*")) == before


def test_saving_over_a_saved_model_replaces_it_whole(model, tmp_path):
    target = tmp_path / "model.hs"
    model.save(target)
    before = (target / "headstart.json").stat().st_ino
    with pytest.raises(ArtifactError, match="is a saved model already"):
        model.save(target)
    assert (target / "headstart.json").stat().st_ino == before
    model.save(target, overwrite=True)
    assert (target / "headstart.json").stat().st_ino != before
    assert load(target).labels == model.labels
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")
    load(tmp_path / "empty").save(tmp_path / "empty", overwrite=True)  # over itself
    assert load(tmp_path / "empty").labels == model.labels
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "model.hs"]


def test_a_full_disk_or_an_interrupt_leaves_the_older_model_and_nothing_else(model, tmp_path, monkeypatch):
    target = tmp_path / "model.hs"
    model.save(target)

    for trouble in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()):

        def copy_one(source, name, place, _, *, trouble=trouble):
            shutil.copy(source / name, place)
            raise trouble

        monkeypatch.setattr("headstart.model.place._copy_file", copy_one)
        with pytest.raises((ArtifactError, KeyboardInterrupt)) as caught:
            model.save(target, overwrite=True)
        assert isinstance(trouble, OSError) == isinstance(caught.value, ArtifactError)
        if isinstance(trouble, OSError):
            assert "cannot be written: No space left on device" in caught.value.what
            assert "free some space" in caught.value.mend
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["model.hs"]
    assert load(target).labels == model.labels


def test_a_place_that_cannot_be_written_is_told_so(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot be written"):
        model.save(tmp_path / "file" / "model.hs")
    with pytest.raises(ArtifactError, match="no name for a saved model|exists and is not a saved model"):
        model.save("/")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_report_in_one_line(model):
    told = str(model.report)
    summary = model.report.content["summary"]
    low, high = summary["test"]["accuracy_ci95"]
    assert told.startswith(f"accuracy {summary['test']['accuracy']:.3f} [{low:.3f}, {high:.3f}], strategy extract, ")
    assert "backbone efficientnet-lite0, majority class 0.250, " in told
    assert "\n" not in told


def test_a_model_kept_nowhere_is_gone_with_its_last_user(pictures):
    model = fit(pictures, strategy="extract")
    folder = model.folder
    assert (folder / "headstart.json").is_file()
    assert isinstance(model, Model)
    del model
    assert not folder.exists()


def test_saved_model_needs_no_pickle_and_no_torch(artifact, draw, tmp_path, run_python):
    """In a process where neither can be had; and with the folder alone, moved, and no cache."""
    moved = shutil.copytree(artifact, tmp_path / "moved.hs")
    draw("rings", 60).save(tmp_path / "new.png")
    code = """
import pickle, sys
def refuse(*_, **__):
    raise AssertionError("pickle was used")
pickle.load = pickle.loads = pickle.Unpickler = refuse
for name in ("torch", "timm", "torchvision", "sklearn", "scipy", "onnx", "matplotlib", "jinja2", "pandas", "pyarrow", "lmdb"):
    sys.modules[name] = None
import headstart
(found,) = headstart.load(sys.argv[1]).predict(sys.argv[2])
print(found.label)
print(sorted(name for name in sys.modules if name.split(".")[:2] in (["headstart", "select"], ["headstart", "heads"])))
"""
    said = run_python(code, moved, tmp_path / "new.png", HEADSTART_CACHE=str(tmp_path / "no cache"))
    assert said.returncode == 0, said.stderr
    # Of the heads, only the record of what the terms of texts say; nothing that fits one.
    assert said.stdout.splitlines() == ["rings", "['headstart.heads', 'headstart.heads.terms']"]
    assert not (tmp_path / "no cache").exists()


@pytest.mark.parametrize(("modality", "name"), [("image", "x.png"), ("text", "x.txt"), ("audio", "x.wav")])
def test_words_that_are_folders_without_items_are_not_passed_over(tmp_path, modality, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.xyz").write_bytes(b"1")
    (tmp_path / name).write_bytes(b"1")
    words = [str(tmp_path / word) for word in ("empty", name, "other")]
    assert [word for word, _ in _name_items(words, modality, TableWords())] == words
    assert _name_items(words[:1], modality, TableWords()) == []
