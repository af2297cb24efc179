import numpy as np
import pytest
from PIL import Image

from headstart.data.source import read, read_with_findings
from headstart.errors import DataError
from test_data_folders import fill, kinds, three_parts

PIXELS = np.zeros((4, 5, 5, 3), np.uint8)


def labels_of(dataset):
    return [s.labels for s in dataset.samples]


def test_pairs_of_text_and_label():
    dataset = read([("good", "p"), ("bad|worse", "n|m"), ["fine", "p"]])
    assert [(s.id, s.item, s.labels) for s in dataset.samples] == [
        ("row-000000", "good", ("p",)),
        ("row-000001", "bad|worse", ("n|m",)),
        ("row-000002", "fine", ("p",)),
    ]
    assert (dataset.modality, dataset.task) == ("text", "single")


def test_pairs_of_paths(tmp_path, monkeypatch):
    fill(tmp_path, "1.jpg", "2.jpg")
    monkeypatch.chdir(tmp_path)
    assert [s.id for s in read([(tmp_path / "1.jpg", "a"), (tmp_path / "2.jpg", "b")]).samples] == ["1.jpg", "2.jpg"]
    dataset = read([("1.jpg", "a"), ("2.jpg", "b")])
    assert dataset.modality == "image" and dataset.samples[0].item == tmp_path / "1.jpg"


def test_arrays_of_pixels_and_of_waves():
    dataset = read((PIXELS, np.array([0, 10, 2, 0])))
    assert dataset.labels == ("0", "2", "10") and dataset.modality == "image"
    assert dataset.samples[1].item.shape == (5, 5, 3)
    assert read(([np.zeros(9, np.float32), np.ones(7, np.float32)], ["a", "b"])).modality == "audio"
    assert read((np.array(["x", "y"]), np.array(["a", "b"]))).samples[0].item == "x"


def test_pil_images_and_encoded_bytes():
    image = Image.new("RGB", (3, 3))
    assert read([(image, "a"), (image.copy(), "b")]).modality == "image"
    assert read([(b"\xff\xd8\xff", "a"), (b"\x89PNG", "b")]).modality == "image"
    assert read([(b"RIFF\0\0\0\0WAVE", "a"), (b"fLaC", "b")]).modality == "audio"


@pytest.mark.parametrize(
    ("labels", "clean"),
    [
        ([1, 2, 1], ["1", "2", "1"]),
        ([1.0, 2.0, 1.0], ["1", "2", "1"]),
        ([1.0, 2.5, 1.0], ["1", "2.5", "1"]),
        ([True, False, True], ["True", "False", "True"]),
        ([np.True_, np.False_, np.True_], ["True", "False", "True"]),
        ([b"caf\xc3\xa9", b"x", b"x"], ["café", "x", "x"]),
        ([np.float32(3), np.float32(4), np.float32(3)], ["3", "4", "3"]),
        ([np.int64(7), np.int64(8), np.int64(8)], ["7", "8", "8"]),
        ([" a ", "b\n", "a"], ["a", "b", "a"]),
        (np.array([3.0, 1.0, 3.0]), ["3", "1", "3"]),
    ],
)
def test_labels_of_any_type_become_clean_strings(labels, clean):
    dataset = read((["t1", "t2", "t3"], labels))
    assert labels_of(dataset) == [(label,) for label in clean]


def test_missing_labels_of_any_kind_are_left_out():
    import pandas as pd

    reading = read_with_findings((["a", "b", "c", "d", "e", "f"], [1.0, 2.0, None, float("nan"), pd.NA, pd.NaT]))
    assert reading.dataset.labels == ("1", "2")
    assert len(kinds(reading)["unlabelled"].items) == 4


def test_lists_of_labels_are_the_multi_task():
    dataset = read([("x", ["b", "a"]), ("y", {"a"}), ("z", [])])
    assert dataset.task == "multi" and labels_of(dataset) == [("b", "a"), ("a",), ()]


def test_numbers_are_values_when_asked():
    dataset = read([("x", 1), ("y", 2.5), ("z", None)], task="value")
    assert [s.value for s in dataset.samples] == [1.0, 2.5] and dataset.labels == ()


def test_pandas_and_polars_frames_and_dicts():
    import pandas as pd
    import polars as pl

    columns = {
        "text": ["a", "b", "c"],
        "label": [1.0, None, 3.0],
        "group": ["g", None, "g"],
        "split": ["train", "train", "test"],
    }
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns), pl.LazyFrame(columns), columns):
        dataset = read(frame)
        assert [(s.item, s.labels, s.group, s.split) for s in dataset.samples] == [
            ("a", ("1",), "g", "train"),
            ("c", ("3",), "g", "test"),
        ]
    assert read(pd.DataFrame({"text": ["a", "b"], "label": pd.Categorical(["u", "v"])})).labels == ("u", "v")
    assert read(pl.DataFrame({"text": ["a", "b"], "label": [["u"], ["u", "v"]]})).task == "multi"
    assert read(pd.DataFrame({"text": ["a", "b", "c"], "label": ["u|v", "u", "v"]})).task == "multi"
    missing = pd.DataFrame({"text": ["a", "b"], "label": ["u", "v"], "split": pd.array(["train", None], dtype="string")})
    assert [s.split for s in read(missing).samples] == ["train", None]
    with pytest.raises(DataError, match="Series cannot be read"):
        read(pd.Series(["a", "b"]))
    assert len(read((pd.Series(["a", "b"]), pd.Series(["u", "v"]))).samples) == 2


def test_hugging_face_datasets(tmp_path):
    import datasets

    Image.new("RGB", (3, 3), "red").save(tmp_path / "1.png")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ten", "two"])})
    red, blue = str(tmp_path / "1.png"), Image.new("RGB", (3, 3), "blue")
    data = datasets.Dataset.from_dict({"image": [red, blue, blue], "label": [1, 0, -1]}, features=features)
    reading = read_with_findings(data)
    assert [s.labels for s in reading.dataset.samples] == [("two",), ("ten",)]
    assert reading.dataset.modality == "image"
    assert (
        all(isinstance(s.item, bytes) for s in reading.dataset.samples) or reading.dataset.samples[0].item == tmp_path / "1.png"
    )
    assert len(kinds(reading)["unlabelled"].items) == 1
    both = datasets.DatasetDict({"train": data.select([0, 1]), "validation": data.select([1])})
    assert sorted((s.id.split("/")[0], s.split) for s in read(both).samples) == [
        ("train", "train"),
        ("train", "train"),
        ("valid", "valid"),
    ]
    with pytest.raises(DataError) as error:
        read(datasets.DatasetDict({"holdout": data}))
    three_parts(error, "'holdout'", "data['train']")
    with pytest.raises(DataError) as error:
        read(data.to_iterable_dataset())
    three_parts(error, "IterableDataset", "streaming")
    text = datasets.Features({"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=["u", "v"]))})
    multi = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [[1, 0], []]}, features=text)
    assert labels_of(read(multi)) == [("v", "u"), ()]


def test_a_dataset_passes_through_and_can_be_joined():
    first = read([("a", "Cat"), ("b", "cat"), ("c", "dog")])
    assert read(first) is first
    assert read(first, merge_labels={"Cat": "cat"}).labels == ("cat", "dog")
    joined = read(first, test=[("d", "dog")])
    assert [(s.id, s.split) for s in joined.samples][-1] == ("test/row-000000", "test")
    multi = read([("x", ["b", "a"]), ("y", [])])
    assert labels_of(read(multi, test=[("z", ["a"])])) == [("b", "a"), (), ("a",)]
    value = read([("x", 1), ("y", 2)], task="value")
    assert [s.value for s in read(value, test=[("z", 3)]).samples] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], ["no entries"]),
        (["a", "b", "c"], ["entry 0 is a str", "zip"]),
        ([("a", "x"), ("b",)], ["entry 1"]),
        (PIXELS, ["ndarray", "(items, labels)"]),
        ((PIXELS, [1, 2]), ["4 items", "2 labels"]),
        ((PIXELS, np.eye(4)), ["4 numbers 0 or 1", "--label-names"]),
        (42, ["builtins.int", "pairs"]),
        ({"text": ["a"], "label": ["x", "y"]}, ["different lengths"]),
        ({}, ["no columns"]),
        ([(1, "a"), (2, "b")], ["int"]),
        ([("a", {"k": 1}), ("b", "x")], ["row 0: a dict"]),
        ([("a", "x"), ("b", "x")], ["one class: 'x'"]),
        ([("a", None), ("b", "")], ["none of the 2 items"]),
    ],
)
def test_objects_that_cannot_be_data_are_told(data, words):
    with pytest.raises(DataError) as error:
        read(data)
    three_parts(error, *words)
