import csv
import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.data.rows import ReadOptions
from headstart.data.source import read, read_with_findings
from headstart.errors import DataError
from test_data_folders import fill, kinds, put, three_parts

HOSTILE = [
    "a,b",
    'say "hi"',
    "two\nlines",
    "<script>alert(1)</script>",
    "😀",
    "../../etc",
    "'; DROP",
    "=1+1",
    "a\tb",
    "é" * 300,
    "\\",
]


def write_csv(path, rows, **options):
    with path.open("w", encoding=options.pop("encoding", "utf-8"), newline="") as file:
        csv.writer(file, **options).writerows(rows)
    return path


def test_hostile_label_texts_are_labels_like_any_other(tmp_path):
    rows = [[f"text {i}", label] for i, label in enumerate(HOSTILE)]
    for path in (
        write_csv(tmp_path / "t.csv", [["text", "label"], *rows]),
        write_csv(tmp_path / "t.tsv", [["text", "label"], *rows], delimiter="\t"),
    ):
        dataset = read(path)
        assert {s.item: s.labels for s in dataset.samples} == {item: (label,) for item, label in rows}
        assert set(dataset.labels) == set(HOSTILE)
    lines = "\n".join(json.dumps({"text": item, "label": label}) for item, label in rows)
    assert set(read(put(tmp_path / "t.jsonl", lines.encode())).labels) == set(HOSTILE)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    labels=st.lists(
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0|"), min_size=1).filter(
            lambda text: text.strip()
        ),
        min_size=2,
        max_size=8,
        unique_by=str.strip,
    )
)
def test_any_label_text_survives_a_csv(tmp_path, labels):
    # Labels that are all written as '1.0' lose the '.0'; a letter keeps these texts from being numbers.
    labels = [f"x{label}" for label in labels]
    path = write_csv(tmp_path / "any.csv", [["text", "label"], *([f"t{i}", label] for i, label in enumerate(labels))])
    assert [s.labels[0] for s in read(path, task="single").samples] == [label.strip() for label in labels]


def test_paths_resolve_against_the_folder_of_the_table(tmp_path, monkeypatch):
    fill(tmp_path / "d", "img/1.jpg", "img/2.jpg")
    outside = put(tmp_path / "out/3.jpg")
    path = write_csv(
        tmp_path / "d" / "t.csv",
        [
            ["path", "label", "group", "split"],
            ["img/1.jpg", "a", "g1", "train"],
            ["img\\2.jpg", "b", "", "VAL"],
            [outside, "a", "g1", ""],
        ],
    )
    monkeypatch.chdir("/")
    dataset = read(path)
    assert [(s.id, s.labels[0], s.group, s.split) for s in dataset.samples] == [
        ("img/1.jpg", "a", "g1", "train"),
        ("img/2.jpg", "b", None, "valid"),
        ("3.jpg", "a", "g1", None),
    ]
    assert all(s.item.is_file() for s in dataset.samples)


def test_the_same_path_twice_gets_ids_of_its_own(tmp_path):
    fill(tmp_path, "1.jpg", "1.jpg#2")
    path = write_csv(tmp_path / "t.csv", [["path", "label"], ["1.jpg", "a"], ["1.jpg", "b"], ["1.jpg", "c"]])
    assert [s.id for s in read(path).samples] == ["1.jpg", "1.jpg#2", "1.jpg#3"]


def test_some_missing_files_are_a_finding_and_all_an_error(tmp_path):
    fill(tmp_path, "1.jpg", "2.jpg")
    rows = [["path", "label"], ["1.jpg", "a"], ["2.jpg", "b"], *([f"no{i}.jpg", "a"] for i in range(12))]
    reading = read_with_findings(write_csv(tmp_path / "t.csv", rows))
    assert len(reading.dataset.samples) == 2
    finding = kinds(reading)["missing"]
    assert finding.severity == "warning" and len(finding.items) == 12
    assert "no2.jpg" in finding.message and "no3.jpg" not in finding.message and "12 in all" in finding.message
    with pytest.raises(DataError) as error:
        read(write_csv(tmp_path / "t.csv", [rows[0], *rows[3:]]))
    assert "no10.jpg" not in three_parts(error, "12 items", "no0.jpg, no1.jpg", "no9.jpg", "relative to")


def test_rows_without_a_label_are_left_out_and_told(tmp_path):
    reading = read_with_findings(put(tmp_path / "t.csv", b"text,label\none,a\ntwo,  \nthree,b\n"))
    assert [s.item for s in reading.dataset.samples] == ["one", "three"]
    assert kinds(reading)["unlabelled"].items == ("row-000001",)
    with pytest.raises(DataError) as error:
        read(put(tmp_path / "t.csv", b"text,label\none,\ntwo,\n"))
    three_parts(error, "none of the 2 items", "--label-column")


def test_bom_windows_line_ends_quoted_newlines_and_blank_lines(tmp_path):
    path = put(tmp_path / "t.csv", b'\xef\xbb\xbftext,label\r\n"one\r\nmore, and ""so"" on",a\r\n\r\ntwo,b\r\n')
    assert [(s.item, s.labels) for s in read(path).samples] == [('one\r\nmore, and "so" on', ("a",)), ("two", ("b",))]


def test_utf_16_as_excel_writes_it(tmp_path):
    path = put(tmp_path / "t.csv", "text\tlabel\r\nüb\ta\r\nzwei\tb\r\n".encode("utf-16"))
    assert [s.item for s in read(path).samples] == ["üb", "zwei"]


def test_the_delimiter_is_found_in_the_header(tmp_path):
    path = put(tmp_path / "t.csv", b'"text; with, commas";label\n"one; still one";a\ntwo, yes;b\n')
    assert [s.item for s in read(path).samples] == ["one; still one", "two, yes"]


def test_huge_fields_are_read_and_the_limit_of_the_process_stays(tmp_path):
    before = csv.field_size_limit()
    dataset = read(write_csv(tmp_path / "t.csv", [["text", "label"], ["x" * 3_000_000, "a"], ["y", "b"]]))
    assert len(dataset.samples[0].item) == 3_000_000
    assert csv.field_size_limit() == before


def test_ragged_rows_are_named_by_line(tmp_path):
    path = put(tmp_path / "t.csv", b'text,label\n"a\nb",x\nc\nd,y\ne,f,g\nh,z,\n')
    with pytest.raises(DataError) as error:
        read(path)
    text = three_parts(error, "2 rows", "line 4 has 1", "line 6 has 3", "2 fields")
    assert "line 7" not in text


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.csv", b"", ["empty"]),
        ("t.csv", b"text,label\n", ["no rows"]),
        ("t.csv", b"\n", ["names no column"]),
        ("t.csv", b'text,label\na,b\n"c,d\ne,f\n', ["line 3", "quote"]),
        ("t.csv", b"text,text,label\na,b,c\n", ["'text' more than once"]),
        ("t.csv", b"text,label\na,b\ncaf\xe9,c\n", ["line 3", "0xe9", "iconv"]),
        ("t.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n', ["line 2", "JSON"]),
        ("t.jsonl", b'{"text": "a", "label": "b"}\n\n[1]\n', ["line 3", "list"]),
        ("t.jsonl", b"\n\n", ["no rows"]),
        ("t.jsonl", b"[" * 100_000, ["line 1", "JSON"]),
        ("t.parquet", b"PAR1nonsense", ["Parquet"]),
    ],
)
def test_tables_that_cannot_be_read_name_the_line(tmp_path, name, data, words):
    with pytest.raises(DataError) as error:
        read(put(tmp_path / name, data))
    three_parts(error, str(tmp_path / name), *words)


def test_tsv_with_quotes_as_plain_characters(tmp_path):
    path = put(tmp_path / "t.tsv", b'text\tlabel\n"unclosed\ta\nfine\tb\n')
    assert [s.item for s in read(path).samples] == ['"unclosed', "fine"]
    with pytest.raises(DataError, match="line 2 has 1"):
        read(put(tmp_path / "t.tsv", b'text\tlabel\n"unclosed\nfine\tb\n'))


def test_columns_by_option_by_usual_name_and_missing(tmp_path):
    path = put(tmp_path / "t.csv", b"Sentence,Category,stars,who\none,a,1,x\ntwo,b,2,y\n")
    assert read(path).labels == ("a", "b")
    named = read(path, label_column="stars", group_column="who", item_column="Category")
    assert [(s.item, s.labels[0], s.group) for s in named.samples] == [("a", "1", "x"), ("b", "2", "y")]
    with pytest.raises(DataError) as error:
        read(path, label_column="star", split_column="nope")
    three_parts(error, "--label-column 'star' Did you mean 'stars'?", "--split-column 'nope'", "Sentence, Category, stars, who")
    with pytest.raises(DataError) as error:
        read(put(tmp_path / "u.csv", b"text,kind,stars\none,a,1\n"))
    three_parts(error, "label", "text, kind, stars", "--label-column NAME")
    assert read(put(tmp_path / "v.csv", b"review,label\none,a\ntwo,b\n")).samples[0].item == "one"


def test_unknown_split_names_are_refused(tmp_path):
    with pytest.raises(DataError) as error:
        read(put(tmp_path / "t.csv", b"text,label,split\none,a,train\ntwo,b,tset\n"))
    three_parts(error, "'tset'", "line 3", "Did you mean", "'test'", "--split-column")


def labels_of(path, **options):
    dataset = read(path, **options)
    return dataset.task, [s.labels for s in dataset.samples]


def test_one_row_with_several_labels_is_told(tmp_path):
    rows = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(40)]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [*rows, {"text": "both", "label": ["a", "b"]}]))
    for task, told in (("auto", ["few_with_several"]), ("multi", [])):
        found = read_with_findings(path, ReadOptions(task=task))
        assert (found.dataset.task, [finding.kind for finding in found.findings]) == ("multi", told)
        assert not told or found.findings[0].items == ("row-000040",)


def test_one_column_cannot_be_both(tmp_path):
    path = write_csv(tmp_path / "t.csv", [["text", "label"], ["one", "a"], ["two", "b"]])
    with pytest.raises(DataError, match="'text' of the table .* is named for both"):
        read_with_findings(path, ReadOptions(item_column="text", label_column="text"))


def test_multi_label_by_separator_by_list_and_by_option(tmp_path):
    path = put(tmp_path / "t.csv", b"text,label\n1,a|b\n2,b\n3, c | a \n4,\n")
    assert labels_of(path) == ("multi", [("a", "b"), ("b",), ("c", "a"), ()])
    assert kinds(read_with_findings(path))["no_labels"].items == ("row-000003",)
    assert labels_of(path, task="single") == ("single", [("a|b",), ("b",), ("c | a",)])
    # No part occurs in two labels: nothing says that the bar separates.
    assert labels_of(put(tmp_path / "u.csv", b"text,label\n1,a|b\n2,c|d\n"))[0] == "single"
    assert labels_of(put(tmp_path / "v.csv", b"text,label\n1,a|\n2,a\n"))[0] == "single"
    path = put(
        tmp_path / "t.jsonl", b'{"text":"1","label":["x","y|z","x"]}\n{"text":"2","label":[]}\n{"text":"3","label":["x"]}\n'
    )
    assert labels_of(path) == ("multi", [("x", "y|z"), (), ("x",)])
    with pytest.raises(DataError) as error:
        read(path, task="single")
    three_parts(error, "line 1", "['x', 'y|z', 'x']", "--task multi")


def test_whole_floats_lose_their_point_whatever_the_others_are(tmp_path):
    assert labels_of(put(tmp_path / "t.csv", b"text,label\n1,2.0\n2,10.0\n3,1.0\n"))[1] == [("2",), ("10",), ("1",)]
    assert labels_of(put(tmp_path / "t.csv", b"text,label\n1,2.0\n2,2.5\n"))[1] == [("2",), ("2.5",)]
    assert labels_of(put(tmp_path / "t.csv", b"text,label\n1,01\n2,1\n"))[1] == [("01",), ("1",)]


def test_values_by_option_and_by_many_fractions(tmp_path):
    numbers = [f"{i}.{i + 1}" for i in range(25)]
    path = write_csv(tmp_path / "t.csv", [["text", "label"], *([f"t{i}", n] for i, n in enumerate(numbers)), ["blank", ""]])
    dataset = read(path)
    assert dataset.task == "value" and dataset.labels == ()
    assert [s.value for s in dataset.samples] == [float(n) for n in numbers]
    assert (
        read(write_csv(tmp_path / "u.csv", [["text", "label"], ["a", "1"], ["b", "3"]]), task="value").samples[1].value == 3.0
    )
    assert read(write_csv(tmp_path / "v.csv", [["text", "label"], *([f"t{i}", i] for i in range(30))])).task == "single"
    with pytest.raises(DataError) as error:
        read(write_csv(tmp_path / "w.csv", [["text", "label"], ["a", "1,5"], ["b", "inf"], ["c", "2"]]), task="value")
    three_parts(error, "line 2: '1,5'", "line 3: 'inf'", "--task multiclass")


def test_parquet_with_images_and_class_names(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    features = {"info": {"features": {"label": {"names": ["ten", "two"], "_type": "ClassLabel"}}}}
    table = pa.table(
        {
            "image": [
                {"bytes": b"\x89PNG1", "path": "1.png"},
                {"bytes": b"\x89PNG2", "path": None},
                {"bytes": b"z", "path": None},
            ],
            "label": [0, 1, -1],
            "unused": [[0.0] * 9] * 3,
        }
    )
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)
    reading = read_with_findings(path)
    assert [(s.id, s.item, s.labels) for s in reading.dataset.samples] == [
        ("row-000000", b"\x89PNG1", ("ten",)),
        ("row-000001", b"\x89PNG2", ("two",)),
    ]
    assert reading.dataset.modality == "image"
    assert kinds(reading)["unlabelled"].items == ("row-000002",)
    pq.write_table(pa.table({"text": ["a", "b"], "label": pa.array([["x"], ["x", "y"]])}), path)
    assert labels_of(path) == ("multi", [("x",), ("x", "y")])
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1.0, 2.0]}), path)
    assert labels_of(path) == ("single", [("1",), ("2",)])
    pq.write_table(pa.table({"a": ["a"], "b": ["b"], "c": [1]}), path)
    with pytest.raises(DataError, match="a, b, c"):
        read(path)


def test_text_files_named_by_a_table_and_text_that_looks_like_none(tmp_path):
    fill(tmp_path, "1.txt", "2.txt")
    dataset = read(put(tmp_path / "t.csv", b"file,label\n1.txt,a\n2.txt,b\n"))
    assert dataset.modality == "text" and dataset.samples[0].item == tmp_path / "1.txt"
    dataset = read(put(tmp_path / "u.csv", b"text,label\nsee notes.txt for it. Then go.,a\nno,b\n"))
    assert dataset.samples[0].item == "see notes.txt for it. Then go."


def test_items_of_undecidable_types_are_refused(tmp_path):
    with pytest.raises(DataError) as error:
        read(put(tmp_path / "t.jsonl", b'{"item":1,"label":"a"}\n{"item":"x","label":"b"}\n'))
    three_parts(error, "int, str")
    with pytest.raises(DataError) as error:
        read(put(tmp_path / "t.csv", b"text,label\n,a\n,b\n"))
    three_parts(error, "empty in every row", "--item-column")


def test_lone_surrogates_in_json_do_not_break_writing(tmp_path):
    path = put(tmp_path / "t.jsonl", b'{"text":"a","label":"x\\ud800"}\n{"text":"b","label":"y"}\n')
    for label in read(path).labels:
        label.encode("utf-8")


def test_reading_imports_nothing_heavy(tmp_path):
    path = put(tmp_path / "t.csv", b"text,label\na,x\nb,y\n")
    code = (
        "import sys; from headstart.data.source import read;"
        "import headstart.data.split, headstart.data.folds, headstart.data.checks;"
        f"read({str(path)!r}); read([('a','x'),('b','y')]);"
        "heavy = {'pandas', 'polars', 'pyarrow', 'datasets', 'torch', 'sklearn', 'scipy', 'PIL', 'onnxruntime'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
