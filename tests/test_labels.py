"""Labels through every door: indicator rows, numbers, words for missing values, columns, encodings, names of files."""

import json
from pathlib import Path

import numpy as np
import pytest

from headstart.config import FitSettings
from headstart.data.item_tables import items_of_table
from headstart.data.rows import ReadOptions
from headstart.data.source import read, read_with_findings
from headstart.encodings import guess_encoding
from headstart.errors import DataError, SettingError

ONE_HOT = [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
MULTI_HOT = [[0, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]]
NAMES = ["cat", "dog", "fox"]
TEXTS = ["one", "two", "three", "four"]


def kinds(reading):
    return {finding.kind: finding for finding in reading.findings}


def labels_of(dataset):
    return [sample.labels for sample in dataset.samples]


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def csv_of(path, rows):
    return put(path, "".join(",".join(map(str, row)) + "\n" for row in [("text", "label"), *rows]))


def as_torch(rows):
    torch = pytest.importorskip("torch")
    return [torch.tensor(row) for row in rows]


FORMS = {
    "lists": lambda rows: rows,
    "arrays": lambda rows: [np.array(row) for row in rows],
    "table": np.array,
    "floats": lambda rows: np.array(rows, np.float32),
    "bools": lambda rows: [[bool(value) for value in row] for row in rows],
    "texts": lambda rows: [[str(value) for value in row] for row in rows],
    "torch": as_torch,
}


@pytest.mark.parametrize("form", FORMS)
def test_indicator_rows_become_named_labels_or_are_refused(form):
    assert labels_of(read((TEXTS, FORMS[form](ONE_HOT)), label_names=NAMES)) == [("fox",), ("dog",), ("cat",), ("fox",)]
    several = read((TEXTS, FORMS[form](MULTI_HOT)), label_names=NAMES)
    assert several.task == "multi"
    assert labels_of(several) == [("dog", "fox"), ("dog",), (), ("cat", "fox")]
    for rows in (ONE_HOT, MULTI_HOT):
        with pytest.raises(DataError, match="--label-names"):
            read((TEXTS, FORMS[form](rows)))
    with pytest.raises(DataError, match="2 names"):
        read((TEXTS, FORMS[form](ONE_HOT)), label_names=["a", "b"])


def test_indicator_rows_of_files_and_frames(tmp_path):
    lines = "\n".join(json.dumps({"text": text, "label": row}) for text, row in zip(TEXTS, MULTI_HOT, strict=True))
    path = put(tmp_path / "t.jsonl", lines)
    assert labels_of(read(path, label_names=NAMES))[0] == ("dog", "fox")
    with pytest.raises(DataError, match="--label-names"):
        read(path)
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"text": TEXTS, "label": MULTI_HOT})
    assert labels_of(read(frame, label_names=NAMES))[3] == ("cat", "fox")
    frame.to_parquet(tmp_path / "t.parquet")
    assert labels_of(read(tmp_path / "t.parquet", label_names=NAMES))[3] == ("cat", "fox")
    written = pd.DataFrame({"text": TEXTS, "label": [str(np.array(row)) for row in MULTI_HOT]})
    written.to_csv(tmp_path / "w.csv", index=False)
    assert labels_of(read(tmp_path / "w.csv", label_names=NAMES))[0] == ("dog", "fox")


def test_scores_counts_and_ragged_rows_of_numbers_are_no_labels():
    for rows in ([[0.1, 0.9], [0.8, 0.2]], [[0, 0, 1], [1, 0]], [[2, 2, 0], [0, 1, 0]]):
        with pytest.raises(DataError, match="no sets of labels"):
            read((["a", "b"], rows))
    assert labels_of(read((["a", "b", "c"], [[3, 7], [7], []]))) == [("3", "7"), ("7",), ()]
    assert labels_of(read((["a", "b"], [{1, 0}, {0}]), task="multi")) == [("0", "1"), ("0",)]


def test_nothing_is_named_by_its_repr():
    torch = pytest.importorskip("torch")
    assert labels_of(read((TEXTS, torch.tensor([2, 0, 2, 0])))) == [("2",), ("0",), ("2",), ("0",)]
    assert labels_of(read([("a", torch.tensor(1.0)), ("b", np.array(2))])) == [("1",), ("2",)]
    for label in ({"name": "x"}, object(), 3j):
        with pytest.raises(DataError, match="neither text nor number"):
            read([("a", label), ("b", "x")])


def test_columns_of_indicators_name_the_labels(tmp_path):
    rows = ["text,red,green,blue", *(f"{text},{','.join(map(str, row))}" for text, row in zip(TEXTS, ONE_HOT, strict=True))]
    path = put(tmp_path / "t.csv", "\n".join(rows))
    single = read(path, label_columns=["red", "green", "blue"])
    assert single.task == "single" and labels_of(single)[:2] == [("blue",), ("green",)]
    assert labels_of(read(path, label_columns=["green", "blue"]))[2] == ()
    assert read(path, label_columns=["red", "green", "blue"], task="multilabel").task == "multi"
    with pytest.raises(DataError, match="grene"):
        read(path, label_columns=["red", "grene"])
    with pytest.raises(DataError, match="line 2, column 'red': '2'"):
        read(put(tmp_path / "u.csv", "text,red,blue\na,2,0\nb,1,0\n"), label_columns=["red", "blue"])
    with pytest.raises(SettingError, match="label_column too"):
        ReadOptions(label_columns=("red",), label_column="blue")


def test_a_separator_of_ones_own(tmp_path):
    path = put(tmp_path / "t.csv", 'text,label\na,"red, green"\nb,green\nc,"blue; red"\n')
    dataset = read(path, label_separator=",")
    assert dataset.task == "multi" and labels_of(dataset) == [("red", "green"), ("green",), ("blue; red",)]
    assert labels_of(read([("a", "x;y"), ("b", "y")], label_separator=";"))[0] == ("x", "y")
    with pytest.raises(SettingError, match="empty"):
        read(path, label_separator="")


def test_a_number_is_one_class_however_it_is_written(tmp_path):
    assert labels_of(read([("a", 1), ("b", 1.0), ("c", 2.5), ("d", np.float32(1))])) == [("1",), ("1",), ("2.5",), ("1",)]
    full = csv_of(tmp_path / "full.csv", [("a", "1.0"), ("b", "2.0"), ("c", "2.5")])
    part = csv_of(tmp_path / "part.csv", [("a", "1.0"), ("b", "2.0")])
    assert set(read(part).labels) < set(read(full).labels)
    for known in (("1.0", "2.0", "2.5"), ("1", "2", "2.50"), ("1.00", "2", "x")):
        options = ReadOptions(known_labels=known, least_classes=1)
        assert labels_of(read_with_findings(part, options).dataset) == [(known[0],), (known[1],)]
    versions = read_with_findings([("a", "1.10"), ("b", "1.1")], ReadOptions(known_labels=("1.1", "1.10"))).dataset
    assert labels_of(versions) == [("1.10",), ("1.1",)]


@pytest.mark.parametrize("word", ["nan", "NA", "null", "None", "N/A"])
def test_words_for_a_missing_value_are_counted_and_left_out(tmp_path, word):
    path = csv_of(tmp_path / "t.csv", [("a", "x"), ("b", word), ("c", "y"), ("d", word)])
    reading = read_with_findings(path)
    assert reading.dataset.labels == ("x", "y") and len(reading.dataset.samples) == 2
    finding = kinds(reading)["missing_label_text"]
    assert finding.items == ("row-000001", "row-000003") and f"'{word}' (2)" in finding.message
    assert "unlabelled" not in kinds(reading)
    assert set(read(path, merge_labels={word: "absent"}).labels) == {"absent", "x", "y"}
    assert word in read(path, merge_labels={word: word}).labels
    numbers = csv_of(tmp_path / "n.csv", [("a", 1.5), ("b", word), ("c", 2)])
    assert [sample.value for sample in read(numbers, task="regression").samples] == [1.5, 2.0]


def test_words_for_a_missing_value_elsewhere(tmp_path):
    several = read_with_findings([("a", ["x", "NA"]), ("b", ["NA"]), ("c", ["y"]), ("d", [])])
    assert labels_of(several.dataset) == [("x",), ("y",), ()]
    for name in ("NA", "None"):
        put(tmp_path / "folders" / name / "1.txt", "some text")
    assert read(tmp_path / "folders").labels == ("NA", "None")
    assert read([("a", "none"), ("b", "nap")]).labels == ("nap", "none")


def test_numbers_as_classes_are_noticed(tmp_path):
    path = csv_of(tmp_path / "t.csv", [(f"t{i}", i % 16) for i in range(64)])
    assert "--task regression" in kinds(read_with_findings(path))["numeric_labels"].mend
    assert "numeric_labels" not in kinds(read_with_findings(path, ReadOptions(task="multiclass")))
    assert "numeric_labels" not in kinds(read_with_findings([("a", "x"), ("b", 1), ("c", 2), ("d", 3), ("e", 4)]))
    assert "numeric_labels" not in kinds(read_with_findings([("a", 0), ("b", 1)]))


@pytest.mark.parametrize(
    ("word", "task"), [("regression", "value"), ("multiclass", "single"), ("multilabel", "multi"), ("generation", "generate")]
)
def test_tasks_by_their_usual_names(word, task):
    assert FitSettings(task=word).task == task
    if task != "generate":
        assert ReadOptions(task=word).task == task


def test_settings_of_labels_are_typed():
    settings = FitSettings.from_options({"label_columns": ["a", "b"], "label_names": "x, y", "item_root": Path("d")})
    assert (settings.label_columns, settings.label_names, settings.item_root) == (("a", "b"), ("x", "y"), "d")
    for wrong in ({"label_columns": 3}, {"label_names": [1, 2]}, {"item_root": 4}):
        with pytest.raises(SettingError):
            FitSettings.from_options(wrong)
    for wrong in ({"label_columns": ("a", "a")}, {"encoding": "klingon"}, {"encoding": "base64"}):
        with pytest.raises(SettingError):
            ReadOptions(**wrong)


def test_options_that_do_not_apply_are_refused(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / "d" / name / "1.txt", "some text")
    table = csv_of(tmp_path / "t.csv", [("x", "a"), ("y", "b")])
    options = {
        "label_column": "label",
        "item_column": "text",
        "group_column": "g",
        "split_column": "s",
        "label_columns": ["a"],
        "label_separator": ",",
        "label_names": ["a", "b"],
        "item_root": tmp_path,
        "encoding": "utf-8",
    }
    for name, value in options.items():
        with pytest.raises(SettingError, match=f"--{name.replace('_', '-')} is given, and means nothing"):
            read(tmp_path / "d", **{name: value})
    with pytest.raises(SettingError, match="--label-column"):
        read([("x", "a"), ("y", "b")], label_column="label")
    with pytest.raises(SettingError, match="--encoding"):
        read({"text": ["x", "y"], "label": ["a", "b"]}, encoding="utf-8")
    assert read(tmp_path / "d", test=table, label_column="label").labels == ("a", "b")  # it applies to one of the two


def test_names_of_files_without_suffix_are_files(tmp_path):
    for index in range(6):
        put(tmp_path / "im" / f"disc_{index}.jpg", b"x")
    rows = [(f"disc_{index}", "ab"[index % 2]) for index in range(6)]
    with_folder = csv_of(tmp_path / "t.csv", [(f"im/{name}", label) for name, label in rows])
    dataset = read(with_folder)
    assert dataset.modality == "image" and dataset.samples[2].item == tmp_path / "im" / "disc_2.jpg"
    assert dataset.samples[2].id == "im/disc_2.jpg"
    bare = csv_of(tmp_path / "u.csv", rows)
    assert read(bare, item_root=tmp_path / "im").modality == "image"
    reading = read_with_findings(bare)
    assert reading.dataset.modality == "text" and "'im'" in kinds(reading)["names_of_files"].mend
    kaggle = put(tmp_path / "k.csv", "id_code,diagnosis\n" + "".join(f"{name},{label}\n" for name, label in rows))
    assert read(kaggle, item_root=tmp_path / "im").modality == "image"
    for table in (kaggle, csv_of(tmp_path / "w.csv", [(f"{name}.jpg", label) for name, label in rows])):
        with pytest.raises(DataError, match="'im'") as refused:
            read(table)
        assert "--item-root" in refused.value.mend
    lost = csv_of(tmp_path / "im" / "v.csv", [*rows, ("disc_9", "a")])
    reading = read_with_findings(lost)
    assert reading.dataset.modality == "image" and len(reading.dataset.samples) == 6
    assert kinds(reading)["missing"].items == ("disc_9",)


@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_relative_folders_are_joined_once(tmp_path, monkeypatch, suffix):
    for index in range(4):
        put(tmp_path / "data" / "im" / f"disc_{index}.jpg", b"x")
    csv_of(tmp_path / "data" / "t.csv", [(f"im/disc_{index}{suffix}", "ab"[index % 2]) for index in range(4)])
    csv_of(tmp_path / "u.csv", [(f"disc_{index}{suffix}", "ab"[index % 2]) for index in range(4)])
    monkeypatch.chdir(tmp_path)
    for dataset in (read("data/t.csv"), read("u.csv", item_root="data/im"), read("u.csv", item_root=tmp_path / "data" / "im")):
        assert [sample.item.resolve() for sample in dataset.samples] == [
            tmp_path.resolve() / "data" / "im" / f"disc_{index}.jpg" for index in range(4)
        ]
    items = items_of_table(Path("u.csv"), "image", column="text", root=Path("data/im"))
    assert [item.is_file() for _, item in items] == [True] * 4


def test_labels_joined_in_a_cell_are_noticed(tmp_path):
    for cells, separator in (
        (["red, green", "red", "green", "green, red"], ","),
        (["a;b", "b;c", "c;a"], ";"),
        (["a/b", "a", "b"], "/"),
    ):
        path = csv_of(tmp_path / "t.csv", [(f"t{index}", f'"{cell}"') for index, cell in enumerate(cells)])
        found = kinds(read_with_findings(path))["joined_labels"]
        assert f"--label-separator '{separator}'" in found.mend
        assert read(path, label_separator=separator).task == "multi"
        assert "joined_labels" not in kinds(read_with_findings(path, ReadOptions(task="multiclass")))
    for cells in (["Paris, France", "Lyon, France", "Berlin, Germany"], ["a,", "a", "b"], ["x", "y"]):
        path = csv_of(tmp_path / "t.csv", [(f"t{index}", f'"{cell}"') for index, cell in enumerate(cells)])
        assert "joined_labels" not in kinds(read_with_findings(path))


def test_columns_of_indicators_are_hinted_at(tmp_path):
    with pytest.raises(DataError) as refused:
        read(put(tmp_path / "t.csv", "text,red,green\na,1,0\nb,0,1\n"))
    assert "--label-columns" in refused.value.mend


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": {"names": ["x", "y"], "_type": "ClassLabel"}, "_type": "Sequence"},
        {"feature": {"names": ["x", "y"], "_type": "ClassLabel"}, "_type": "List"},
        [{"names": ["x", "y"], "_type": "ClassLabel"}],
    ],
)
def test_lists_of_class_numbers_of_a_parquet_file_are_named(tmp_path, feature):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    table = pa.table({"text": TEXTS, "label": [[0], [1], [0, 1], []]})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
    assert labels_of(read(tmp_path / "t.parquet")) == [("x",), ("y",), ("x", "y"), ()]
    table = pa.table({"text": TEXTS, "label": [[0], [1], [0, 7], []]})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="class 7"):
        read(tmp_path / "t.parquet")


def test_quotes_that_join_rows_of_a_tsv_are_plain_characters(tmp_path):
    items = [f'"text {i}' if i % 20 == 3 else f'text {i}"' if i % 20 == 9 else f"text {i}" for i in range(60)]
    path = put(tmp_path / "t.tsv", "text\tlabel\n" + "".join(f"{item}\t{'ab'[i % 2]}\n" for i, item in enumerate(items)))
    reading = read_with_findings(path)
    assert [sample.item for sample in reading.dataset.samples] == items
    assert "lines 5 to 11" in kinds(reading)["quotes_across_rows"].message
    meant = put(tmp_path / "u.tsv", 'text\tlabel\n"one\ntwo"\ta\nthree\tb\n')
    reading = read_with_findings(meant)
    assert [s.item for s in reading.dataset.samples] == ["one\ntwo", "three"] and not reading.findings


def test_column_names_that_come_twice_are_refused():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame([["a", "x", "y"], ["b", "y", "x"]], columns=["text", "label", "label"])
    for data in (frame, pd.DataFrame({"text": ["a", "b"], 1: ["x", "y"], "1": ["y", "x"]}), {"text": ["a"], 1: [1], "1": [2]}):
        with pytest.raises(DataError, match="more than once"):
            read(data)


CYRILLIC = "текст,label\nБыстрая лиса прыгает через собаку,да\nМама мыла раму,нет\n".replace("текст", "text")


def test_other_encodings_are_guessed_and_can_be_named(tmp_path):
    path = put(tmp_path / "t.csv", CYRILLIC.encode("cp1251"))
    with pytest.raises(DataError, match="--encoding windows-1251"):
        read(path)
    assert read(path, encoding="windows-1251").labels == ("да", "нет")
    lines = put(tmp_path / "t.jsonl", '{"text":"é","label":"à"}\n{"text":"x","label":"b"}\n'.encode("cp1252"))
    assert set(read(lines, encoding="cp1252").labels) == {"à", "b"}
    with pytest.raises(DataError, match="not ascii"):
        read(path, encoding="ascii")


def test_a_text_file_of_another_encoding_says_which(tmp_path):
    from headstart.preprocess.items import UnreadableItemError
    from headstart.preprocess.text_items import read_text

    path = put(tmp_path / "t.txt", "Мама мыла раму, а папа читал газету".encode("cp1251"))
    with pytest.raises(UnreadableItemError, match="windows-1251"):
        read_text(path)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Съешь ещё этих мягких французских булок", "windows-1251"),
        ("Съешь ещё этих мягких французских булок", "koi8-r"),
        ("snow ice snow winter sled snow sled winter мир, and plenty of plain words", "windows-1251"),
        ("a lot of plain text, and one été où tout va à Orléans", "windows-1252"),
        ("Der Bär fährt über die Brücke, très élégant, señor", "windows-1252"),
        ("これは日本語の文章です。猫が好きです", "shift_jis"),
        ("这是一个中文句子，我喜欢猫", "gb18030"),
    ],
)
def test_guesses_of_encodings(text, encoding):
    assert guess_encoding(text.encode(encoding)) == encoding
    assert guess_encoding(b"plain") == ""


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("windows-1252", ["B\u00e4r", "B\u00f6r", "B\u00fcr"]),
        ("windows-1252", ["caf\u00e9", "th\u00e9"]),
        ("windows-1252", ["a\u00f1o", "ni\u00f1o", "pi\u00f1a"]),
        ("gb18030", ["\u732b", "\u72d7", "\u9e1f", "\u9c7c", "\u9a6c", "\u725b"]),
        ("shift_jis", ["\u30a2\u30a4", "\u30cd\u30b3"]),
    ],
)
def test_short_names_have_the_encoding_of_their_letters(encoding, names):
    assert guess_encoding("\n".join(names).encode(encoding)) == encoding


def test_hostile_tables_end_in_a_message(tmp_path):
    for line in ('{"text":"a","label":' + "9" * 5000 + "}", "[" * 100_000, '{"text":' + "[" * 100_000):
        with pytest.raises(DataError, match="line 1"):
            read(put(tmp_path / "t.jsonl", line + "\n"))
    with pytest.raises(DataError, match="field larger"):
        read(put(tmp_path / "t.csv", "text,label\n" + "x" * 21_000_000 + ",a\n"))


def test_hostile_parquet_ends_in_a_message(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    deep = b'{"info":' + b"[" * 100_000
    wrong = b'{"info":{"features":{"label":{"_type":"ClassLabel","names":["a","b"]}}}}'
    no_list = b'{"info":{"features":{"label":{"_type":"ClassLabel","names":7}}}}'
    table = pa.table({"text": ["x", "y"], "label": [0, 5]})
    for metadata in (deep, no_list):
        pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), path)
        assert read(path).labels == ("0", "5")
    pq.write_table(table.replace_schema_metadata({"huggingface": wrong}), path)
    with pytest.raises(DataError, match="class 5"):
        read(path)
    dates = pa.table({"text": ["x", "y"], "label": pa.array([2**62, 1], pa.timestamp("us"))})
    pq.write_table(dates, path)
    with pytest.raises(DataError, match="Parquet"):
        read(path)


def _parquet_of_one_long_value(pa, where):
    number = 20_000
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(number, np.int32)), ["z" * 100_000])
    labels = pa.array(["x", "y"] * (number // 2))
    match where:
        case "text":
            return pa.table({"text": long, "label": labels})
        case "record":
            image = pa.StructArray.from_arrays([long.cast(pa.dictionary(pa.int32(), pa.binary())), labels], ["bytes", "path"])
            return pa.table({"image": image, "label": labels})
        case "labels":
            lists = pa.ListArray.from_arrays(pa.array(np.arange(number + 1, dtype=np.int32)), long)
            return pa.table({"text": labels, "label": lists})
        case "numbers":
            zeros = pa.array(np.zeros(10_000_000, np.int64))
            return pa.table({"text": zeros, "label": zeros})


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("where", ["text", "record", "labels", "numbers"])
def test_parquet_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path, monkeypatch, where, stored):
    from headstart.data import tables

    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    monkeypatch.setattr(tables, "MIN_UNPACKED", 100_000_000)
    path = tmp_path / "t.parquet"
    pq.write_table(_parquet_of_one_long_value(pa, where), path, compression="zstd", store_schema=stored)
    assert path.stat().st_size < 200_000
    most = pa.default_memory_pool().max_memory()
    with pytest.raises(DataError, match="unpack"):
        read(path)
    assert pa.default_memory_pool().max_memory() <= max(most, 300_000_000)


def test_texts_of_a_dictionary_are_read_as_others_are(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    lists = pa.array([["x", "y"], [], ["y"], ["x"]])
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        table = pa.table({"text": pa.array(TEXTS).cast(kind), "label": lists})
        pq.write_table(table, tmp_path / "t.parquet")
        dataset = read(tmp_path / "t.parquet")
        assert [sample.item for sample in dataset.samples] == TEXTS
        assert labels_of(dataset) == [("x", "y"), (), ("y",), ("x",)]


def test_many_columns_and_many_labels_take_no_square_of_their_number(tmp_path, monkeypatch):
    from headstart.data import class_checks

    names = [f"c{index}" for index in range(20_000)]
    path = put(tmp_path / "t.csv", f"text,label,{','.join(names)}\n" + f"a,x{',0' * 20_000}\nb,y{',0' * 20_000}\n")
    assert read(path).labels == ("x", "y")
    looks = 0

    class Label(str):
        def __eq__(self, other):
            nonlocal looks
            looks += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    from headstart.records import Dataset, Sample

    labels = tuple(Label(f"l{index}") for index in range(500))
    samples = tuple(Sample(id=str(index), item="x", labels=(label,)) for index, label in enumerate(labels))
    dataset = Dataset(samples=samples, labels=labels, task="single", modality="text", source="")
    class_checks.find_class_problems(dataset, {})
    assert looks < 100 * len(labels)
