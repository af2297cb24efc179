import os
from pathlib import Path

import pytest

from headstart.data.rows import ReadOptions
from headstart.data.source import read, read_with_findings
from headstart.errors import DataError, SettingError


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def fill(root: Path, *names: str) -> Path:
    for name in names:
        put(root / name)
    return root


def kinds(reading):
    return {finding.kind: finding for finding in reading.findings}


def three_parts(error: pytest.ExceptionInfo, *words: str) -> str:
    """Every message tells what, expected and mend, and names what it should."""
    text = str(error.value)
    assert error.value.what and error.value.expected and error.value.mend
    assert "\n  Expected " in text and "\n  Mend: " in text
    for word in words:
        assert word in text, f"{word!r} not in {text}"
    return text


def test_folder_per_class_with_nested_hidden_and_foreign_files(tmp_path):
    fill(tmp_path, "rose/1.jpg", "rose/more/deep/2.PNG", "tulip/3.webp", "tulip/.4.jpg", "tulip/Thumbs.db", "tulip/.DS_Store")
    fill(tmp_path, "__MACOSX/rose/1.jpg", ".git/x.jpg", "README.txt", "tulip/README.txt", "cover.jpg")
    reading = read_with_findings(tmp_path)
    dataset = reading.dataset
    assert dataset.labels == ("rose", "tulip")
    assert (dataset.modality, dataset.task) == ("image", "single")
    assert {s.id: s.labels for s in dataset.samples} == {
        "rose/1.jpg": ("rose",),
        "rose/more/deep/2.PNG": ("rose",),
        "tulip/3.webp": ("tulip",),
    }
    assert all(isinstance(s.item, Path) and s.split is None for s in dataset.samples)
    # Two README.txt and the cover, which lies in no class.
    assert "3 files left out" in kinds(reading)["skipped"].message


def test_labels_are_sorted_naturally(tmp_path):
    fill(tmp_path, *(f"{number}/a.png" for number in (10, 2, 1, 100, 21)))
    assert read(tmp_path).labels == ("1", "2", "10", "21", "100")


@pytest.mark.parametrize("valid", ["valid", "val", "Validation"])
def test_official_splits_above_the_classes(tmp_path, valid):
    fill(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{valid}/a/3.jpg", "test/b/4.jpg", "test/9.jpg")
    reading = read_with_findings(str(tmp_path))
    assert {s.id: s.split for s in reading.dataset.samples} == {
        "train/a/1.jpg": "train",
        "train/b/2.jpg": "train",
        f"{valid}/a/3.jpg": "valid",
        "test/b/4.jpg": "test",
    }
    assert kinds(reading)["unlabelled"].items == ("test/9.jpg",)


def test_folders_beside_the_sides_are_told(tmp_path):
    fill(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg", "unlabelled/4.jpg")
    reading = read_with_findings(tmp_path)
    assert reading.dataset.labels == ("a", "b")
    assert "unlabelled" in kinds(reading)["skipped"].message


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, "train/1.jpg", "train/steam/2.jpg", "bus/3.jpg", "tram/4.jpg")
    dataset = read(tmp_path)
    assert dataset.labels == ("bus", "train", "tram")
    assert {s.split for s in dataset.samples} == {None}


def test_links_are_followed_and_loops_end(tmp_path):
    data = fill(tmp_path / "data", "a/1.jpg", "b/2.jpg")
    put(tmp_path / "elsewhere/3.jpg")
    (data / "a" / "loop").symlink_to(data)
    (data / "a" / "self").symlink_to(data / "a")
    (data / "b" / "more").symlink_to(tmp_path / "elsewhere")
    (data / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    reading = read_with_findings(data)
    assert {"a/1.jpg", "b/2.jpg", "b/more/3.jpg"} <= {s.id for s in reading.dataset.samples}
    assert kinds(reading)["missing"].items[-1] == "b/gone.jpg"


def test_empty_class_folders_are_told(tmp_path):
    fill(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "c").mkdir()
    reading = read_with_findings(tmp_path)
    assert reading.dataset.labels == ("a", "b")
    assert kinds(reading)["empty"].message.startswith("1 class without any image file: c")


@pytest.mark.parametrize(("suffix", "modality"), [("txt", "text"), ("wav", "audio"), ("jpeg", "image"), ("flac", "audio")])
def test_modality_is_told_by_suffix(tmp_path, suffix, modality):
    fill(tmp_path, f"a/1.{suffix}", f"b/2.{suffix}")
    assert read(tmp_path).modality == modality


def test_few_strays_are_skipped_and_many_refused(tmp_path):
    fill(tmp_path, *(f"{c}/{i}.jpg" for c in "ab" for i in range(20)), "a/note.txt", "b/x.wav")
    assert read(tmp_path).modality == "image"
    fill(tmp_path, *(f"a/{i}.txt" for i in range(10)))
    with pytest.raises(DataError) as error:
        read(tmp_path)
    three_parts(error, "40 image, 11 text, 1 audio", "--modality image")
    assert len(read(tmp_path, modality="image").samples) == 40
    with pytest.raises(DataError, match="one class"):
        read(tmp_path, modality="audio")


def test_food_101_lists(tmp_path):
    fill(tmp_path, *(f"images/{c}/{i}.jpg" for c in ("pie", "soup") for i in range(4)))
    put(tmp_path / "meta/train.txt", b"\xef\xbb\xbfpie/0\r\npie/1\r\nsoup/0\r\nsoup/9\r\n")
    put(tmp_path / "meta/test.txt", b"pie/2\nsoup/1\npie/1\n")
    reading = read_with_findings(tmp_path)
    assert {s.id: (s.labels[0], s.split) for s in reading.dataset.samples} == {
        "images/pie/0.jpg": ("pie", "train"),
        "images/pie/1.jpg": ("pie", "test"),
        "images/pie/2.jpg": ("pie", "test"),
        "images/soup/0.jpg": ("soup", "train"),
        "images/soup/1.jpg": ("soup", "test"),
    }
    found = kinds(reading)
    assert found["missing"].items == ("images/soup/9.jpg",)
    assert found["leak"].items == ("images/pie/1.jpg",)
    assert "3 files below images left out" in found["skipped"].message


def test_file_names_that_are_not_utf_8(tmp_path):
    folder = os.fsencode(tmp_path)
    Path(os.fsdecode(folder + b"/caf\xe9")).mkdir()
    for name in (b"/caf\xe9/1.jpg", b"/caf\xe9/2.jpg"):
        Path(os.fsdecode(folder + name)).write_bytes(b"x")
    fill(tmp_path, "tea/1.jpg")
    dataset = read(tmp_path)
    assert len(dataset.samples) == 3
    for sample in dataset.samples:
        (sample.id + "".join(sample.labels)).encode("utf-8")
        assert sample.item.exists()


def test_a_table_in_a_folder_without_classes_is_read(tmp_path):
    fill(tmp_path, "images/1.jpg", "images/2.jpg")
    put(tmp_path / "metadata.csv", b"file_name,label\nimages/1.jpg,a\nimages/2.jpg,b\n")
    assert {s.id: s.labels[0] for s in read(tmp_path).samples} == {"images/1.jpg": "a", "images/2.jpg": "b"}


def test_tables_named_by_split(tmp_path):
    put(tmp_path / "train.csv", b"text,label\ngood,p\nbad,n\n")
    put(tmp_path / "test.csv", b"text,label\nfine,p\n")
    dataset = read(tmp_path)
    assert sorted((s.id, s.item, s.split) for s in dataset.samples) == [
        ("test/row-000000", "fine", "test"),
        ("train/row-000000", "good", "train"),
        ("train/row-000001", "bad", "train"),
    ]


def test_a_second_source_is_the_test_split(tmp_path):
    fill(tmp_path / "data", "a/1.jpg", "b/1.jpg", "test/1.jpg")
    fill(tmp_path / "held", "a/1.jpg", "b/1.jpg")
    dataset = read(tmp_path / "data", test=tmp_path / "held")
    assert {s.id: s.split for s in dataset.samples} == {
        "a/1.jpg": None,
        "b/1.jpg": None,
        "test/1.jpg": None,
        "test/a/1.jpg": "test",
        "test/b/1.jpg": "test",
    }


def test_a_test_label_unknown_in_train_is_named(tmp_path):
    fill(tmp_path / "data", "cat/1.jpg", "dog/1.jpg")
    fill(tmp_path / "held", "Cat/1.jpg", "dog/1.jpg")
    with pytest.raises(DataError) as error:
        read(tmp_path / "data", test=tmp_path / "held")
    three_parts(error, "'Cat' (1 item)", "Did you mean 'cat'?", "--merge-labels")
    merged = read(tmp_path / "data", test=tmp_path / "held", merge_labels={"Cat": "cat"})
    assert merged.labels == ("cat", "dog")


def test_a_test_source_may_hold_one_class_only(tmp_path):
    fill(tmp_path / "data", "cat/1.jpg", "dog/1.jpg")
    fill(tmp_path / "held", "dog/7.jpg")
    assert [s.id for s in read(tmp_path / "data", test=tmp_path / "held").samples if s.split == "test"] == ["test/dog/7.jpg"]


def test_two_test_splits_and_two_modalities_are_refused(tmp_path):
    fill(tmp_path / "data", "train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg")
    fill(tmp_path / "held", "a/1.jpg", "b/1.jpg")
    with pytest.raises(DataError) as error:
        read(tmp_path / "data", test=tmp_path / "held")
    three_parts(error, "--test")
    fill(tmp_path / "sounds", "a/1.wav", "b/1.wav")
    with pytest.raises(DataError) as error:
        read(tmp_path / "held", test=tmp_path / "sounds")
    three_parts(error, "audio", "image items in both")


def test_merging_labels(tmp_path):
    fill(tmp_path, "Cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    assert read(tmp_path, merge_labels={"Cat": "cat"}).labels == ("cat", "dog")
    with pytest.raises(DataError) as error:
        read(tmp_path, merge_labels={"Cats": "cat"})
    three_parts(error, "'Cats'", "'Cat'", "--merge-labels")
    with pytest.raises(DataError, match="one class"):
        read(tmp_path, merge_labels={"Cat": "cat", "dog": "cat"})


def test_what_cannot_be_data_is_told_in_three_parts(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(DataError) as error:
        read(tmp_path / "flowers")
    three_parts(error, "empty", "folder per class")
    with pytest.raises(DataError) as error:
        read(tmp_path / "flower")
    three_parts(error, "does not exist", "Did you mean 'flowers'?", "correct the path")
    with pytest.raises(DataError) as error:
        read(tmp_path / "flwers" / "deep" / "er")
    three_parts(error, "Did you mean 'flowers'?")
    with pytest.raises(DataError) as error:
        read(put(tmp_path / "one.jpg"))
    three_parts(error, "single image file", "headstart predict")
    with pytest.raises(DataError) as error:
        read(put(tmp_path / "one.docx"))
    three_parts(error, "'.docx'", ".parquet")
    fill(tmp_path / "loose", "1.jpg", "2.jpg")
    with pytest.raises(DataError) as error:
        read(tmp_path / "loose")
    three_parts(error, "2 image files", "folder per class")
    fill(tmp_path / "single", "only/1.jpg", "only/2.jpg")
    with pytest.raises(DataError) as error:
        read(tmp_path / "single")
    three_parts(error, "'only'", "at least two classes")
    fill(tmp_path / "odd", "a/1.xyz", "b/2.xyz")
    with pytest.raises(DataError) as error:
        read(tmp_path / "odd")
    three_parts(error, "2 × .xyz", ".png")
    with pytest.raises(SettingError) as error:
        read(tmp_path, modality="imag")
    three_parts(error, "'imag'", "Did you mean 'image'?")
    with pytest.raises(SettingError) as error:
        ReadOptions(task="multilabels")
    three_parts(error, "'multilabels'", "multi")


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("gb18030", ["\u732b", "\u72d7", "\u9e1f", "\u9c7c", "\u9a6c", "\u725b"]),
        ("cp1252", ["B\u00e4r", "B\u00f6r", "B\u00fcr"]),
    ],
)
def test_class_folders_that_are_not_utf8_stay_apart(tmp_path, encoding, names):
    for name in names:
        folder = tmp_path / os.fsdecode(name.encode(encoding))
        put(folder / "1.jpg", b"1")
    reading = read_with_findings(tmp_path)
    labels = reading.dataset.labels
    assert len(labels) == len(names)
    # Some names of two bytes are UTF-8 by chance.
    escaped = {label for label in labels if "\\x" in label}
    assert len(escaped) > 1 and all(label.encode("utf-8") for label in labels)
    (finding,) = [finding for finding in reading.findings if finding.kind == "encoding"]
    assert set(finding.items) == escaped
    assert {"gb18030": "gb18030", "cp1252": "windows-1252"}[encoding] in finding.mend


@pytest.mark.parametrize(
    "name",
    ["#recycle", "@eaDir", "__MACOSX", ".Trash-1000", "$RECYCLE.BIN", "lost+found", "System Volume Information", ".git"],
)
def test_folders_of_systems_are_no_classes_and_are_named(tmp_path, name):
    for label in ("a", "b", name):
        put(tmp_path / label / "1.jpg", b"1")
    reading = read_with_findings(tmp_path)
    assert reading.dataset.labels == ("a", "b")
    assert [finding.items for finding in reading.findings] == [(name,)]
    assert reading.findings[0].severity == "info"


def test_whatever_is_left_out_is_named(tmp_path):
    for name in ("a/1.jpg", "b/2.jpg", "a/x.xyz", "b/y.xyz", "b/z.xyz"):
        put(tmp_path / name, b"\0\1")
    put(tmp_path / "a/photo", b"\xff\xd8\xff\xe0")
    (finding,) = read_with_findings(tmp_path).findings
    assert finding.items == ("a/photo", "a/x.xyz", "b/y.xyz", "b/z.xyz")
    assert "a/photo (a JPEG picture" in finding.message and "(4 in all)" in finding.message
