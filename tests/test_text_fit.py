"""Texts through every door: fitted, checked, predicted, scored, embedded, shown; and what is refused, in words."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import headstart
from headstart.api.unlabelled import gather
from headstart.api.use import check, embed, embed_to_file
from headstart.errors import BackboneError, DataError, SettingError
from headstart.records import Sample
from headstart.report.card import model_card
from headstart.report.page import render_report
from headstart.sklearn.extractor import FeatureExtractor

PARTS = {
    "good": ("a wonderful", "a moving", "a funny", "a brilliant", "a charming", "a lovely"),
    "bad": ("a terrible", "a dull", "a boring", "an awful", "a stupid", "a dreadful"),
}
THINGS = ("film", "novel", "concert", "meal", "holiday", "lecture")
ENDS = ("that I will not forget", "from the beginning to the end")
NEEDS_NOTHING = ("torch", "transformers", "timm", "sklearn", "typer", "jinja2")


def sentences():
    """(text, label) pairs, 72 of each label, no two alike, good and bad by turns."""
    parts = zip(PARTS["good"], PARTS["bad"], strict=True)
    return [
        (f"{word} {thing} {end}", label)
        for pair in parts
        for thing in THINGS
        for end in ENDS
        for label, word in zip(PARTS, pair, strict=True)
    ]


def write_table(path, rows, columns=("text", "label")):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV of sentences; one bad one is labelled good, as a mistake to be shown, and holds markup."""
    rows = [*sentences(), ("a <b>dreadful</b> & stupid waste of time, terrible and boring and awful", "good")]
    return write_table(tmp_path_factory.mktemp("texts") / "opinions.csv", rows)


@pytest.fixture(scope="module")
def fitted(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "opinions.hs"
    return headstart.fit(table, out=folder, strategy="extract")


@pytest.fixture
def run(fitted, tmp_path):
    """`run(*words, stdin="")` runs the command in a folder of its own."""

    def start(*words, stdin=""):
        command = [str(Path(sys.executable).with_name("headstart")), *map(str, words)]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)

    return start


def predicted(process):
    assert process.returncode == 0, process.stderr
    return [(each["item"], each["label"]) for each in json.loads(process.stdout)["predictions"]]


# Fit


def test_a_table_of_texts_becomes_a_model(fitted):
    summary = fitted.report.content["summary"]
    assert (summary["modality"], summary["backbone"], summary["labels"]) == ("text", "all-minilm-l6-v2", ["bad", "good"])
    assert summary["test"]["accuracy"] >= 0.9 and summary["counts"]["unreadable"] == 0
    assert fitted.manifest.preprocess["kind"] == "text" and "tokenizer.json" in fitted.manifest.files
    answers = fitted.predict(["an excellent, lovely film", "an awful and stupid book"])
    assert [answer.label for answer in answers] == ["good", "bad"]
    assert answers[0].item == "an excellent, lovely film"
    choice = next(each for each in fitted.report.content["choices"] if each["question"] == "long texts")
    assert choice["kept"] == "head" and choice["reason"]


def test_the_report_shows_texts(fitted):
    content = json.loads(json.dumps(fitted.report.content))
    content["evaluation"]["mistakes"] = [
        {
            "item": "row-7",
            "label": "good",
            "predicted": "bad",
            "probability": 0.9,
            "excerpt": "a <b>dreadful</b> & dull\u202e film",
        }
    ]
    page = render_report(content)
    assert re.search(r"a &lt;b&gt;dreadful&lt;/b&gt; &amp; dull\N{REPLACEMENT CHARACTER} film</blockquote>", page)
    assert "<b>dreadful" not in page and "test texts labelled right" in page and "&#34;a new text&#34;" in page
    assert '"a new text"' in model_card(content) and "images" not in page


def test_a_mistake_is_told_with_its_text(tmp_path):
    wrong = "a <b>dreadful</b> & stupid waste of time, terrible and boring and awful, " + "and dull " * 60
    rows = [(text, label, "test" if number % 4 == 3 else "train") for number, (text, label) in enumerate(sentences())]
    rows.append((wrong, "good", "test"))
    model = headstart.fit(write_table(tmp_path / "t.csv", rows, ("text", "label", "split")), strategy="extract")
    told = next(each for each in model.report.content["evaluation"]["mistakes"] if each["item"] == "row-000144")
    assert told["excerpt"].startswith(wrong[:60]) and told["excerpt"].endswith("…") and len(told["excerpt"]) <= 300
    assert "a &lt;b&gt;dreadful&lt;/b&gt; &amp; stupid" in (model.folder / "report.html").read_text()


def test_the_same_texts_in_other_clothes(fitted, tmp_path):
    pairs = sentences()[:60]
    for number, (text, label) in enumerate(pairs):
        (tmp_path / "folders" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders" / label / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    lines = [json.dumps({"sentence": text, "category": label}) for text, label in pairs]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    scores = [
        headstart.evaluate(fitted, data).metrics["accuracy"]
        for data in (pairs, tmp_path / "folders", tmp_path / "lines.jsonl", write_table(tmp_path / "table.csv", pairs))
    ]
    assert len(set(scores)) == 1 and scores[0] >= 0.9
    model = headstart.fit(tmp_path / "folders", strategy="extract")
    assert model.predict([tmp_path / "folders" / "good" / "000.txt"])[0].label == "good"
    assert model.manifest.modality == "text"


def test_scoring_knows_the_texts_that_were_learned(fitted, table):
    told = headstart.evaluate(fitted, table)
    assert told.warnings[0].startswith("the model learned from 11")


# Predict on the command line


def test_a_word_is_a_text_and_a_file_of_that_name_is_a_file(fitted, run, tmp_path):
    (tmp_path / "dull").write_text("a wonderful, moving, lovely meal")
    (tmp_path / "some" / "more").mkdir(parents=True)
    (tmp_path / "some" / "1.txt").write_text("a terrible and boring film")
    (tmp_path / "some" / "more" / "2.md").write_text("a charming novel that I loved")
    (tmp_path / "some" / "3.jpg").write_bytes(b"no text")
    told = run("predict", fitted.folder, "a boring, awful film", "dull", "some", "--json")
    assert predicted(told) == [
        ("a boring, awful film", "bad"), ("dull", "good"), ("some/1.txt", "bad"), ("some/more/2.md", "good"),
    ]  # fmt: skip
    shown = run("predict", fitted.folder, "a lovely and charming\nholiday " + "at the sea " * 40)
    assert shown.returncode == 0 and max(map(len, shown.stdout.splitlines())) < 100
    assert shown.stdout.splitlines()[1].startswith("a lovely and charming holiday at the sea")


def test_standard_input_holds_a_text_a_line(fitted, run, tmp_path):
    (tmp_path / "dull").write_text("a wonderful, moving, lovely meal")
    assert predicted(run("predict", fitted.folder, "-", "--json", stdin="dull\r\na lovely meal\n\n")) == [
        ("dull", "bad"), ("a lovely meal", "good"),
    ]  # fmt: skip
    gap = run("predict", fitted.folder, "-", "--json", stdin="a dull film\n \na lovely meal\n")
    assert gap.returncode == 2
    answer = json.loads(gap.stdout)
    assert [each["label"] for each in answer["predictions"]] == ["bad", "good"]
    assert answer["unreadable"] == {"line 2 of stdin": "holds only white space"}


@pytest.mark.parametrize(
    ("word", "told"),
    [("", "'': is empty"), ("  ", "'  ': holds only white space"), ("none.txt", "none.txt: there is no such file")],
)
def test_no_text_is_told(fitted, run, tmp_path, word, told):
    (tmp_path / "a.txt").write_text("not to be opened")
    process = run("predict", fitted.folder, word)
    assert process.returncode == 2 and told in process.stderr


def test_nothing_is_no_picture_either(artifact, run, tmp_path):
    process = run("predict", artifact, "")
    assert process.returncode == 2 and "'': there is no such file" in process.stderr


def test_a_file_that_is_no_text_is_told(fitted, run, tmp_path):
    (tmp_path / "latin.txt").write_bytes("fine\nna\xefve\n".encode("latin-1"))
    process = run("predict", fitted.folder, "latin.txt")
    assert process.returncode == 2 and "latin.txt: line 2 is no UTF-8 (byte 0xef)" in process.stderr


def test_predicting_a_text_needs_no_training_code(fitted, run_python):
    code = "import sys; from headstart.cli import main; sys.argv[1:] = ['predict', sys.argv[1], 'a dull film']\n"
    code += "try: main()\nexcept SystemExit as end: assert not end.code\n"
    code += f"found = [name for name in {NEEDS_NOTHING!r} if name in sys.modules]\nassert not found, found"
    done = run_python(code, fitted.folder)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^a dull film +bad +0\.\d+$", done.stdout, re.MULTILINE)


def test_predict_and_evaluate_from_python(fitted, tmp_path):
    (tmp_path / "one.txt").write_text("a moving film")
    one, two, three = fitted.predict(["a stupid lecture", tmp_path / "one.txt", b"an awful, boring meal"])
    assert (one.label, two.label, three.label) == ("bad", "good", "bad")
    assert (one.item, two.item) == ("a stupid lecture", str(tmp_path / "one.txt"))
    assert fitted.predict("a stupid lecture") == [one]
    with pytest.raises(DataError, match=r"0: '': is empty"):
        fitted.predict([""])
    assert fitted.predict(["", "a stupid lecture"], unreadable="skip") == [one]


def test_every_row_of_a_table_is_asked_about(fitted, run, tmp_path):
    rows = [("a stupid lecture", "bad"), ("a wonderful, moving meal", "good")]
    for name, columns in (("named.csv", ("text", "note")), ("other.tsv", ("opinion", "note"))):
        lines = [columns, *rows]
        (tmp_path / name).write_text(
            "\n".join("\t".join(f'"{cell}"' for cell in line) for line in lines).replace(
                "\t", "," if name.endswith("csv") else "\t"
            )
        )
    assert predicted(run("predict", fitted.folder, "named.csv", "--json")) == rows
    assert predicted(run("predict", fitted.folder, "other.tsv", "--item-column", "opinion", "--json")) == rows
    refused = run("predict", fitted.folder, "other.tsv")
    assert refused.returncode == 2 and "--item-column NAME" in refused.stderr
    refused = run("predict", fitted.folder, "other.tsv", "--item-column", "opinions")
    assert refused.returncode == 2 and "no column as named by --item-column 'opinions'" in refused.stderr
    refused = run("predict", fitted.folder, "a stupid lecture", "--item-column", "text")
    assert refused.returncode == 2 and "no ITEM is a table" in refused.stderr


def test_what_cannot_be_read_is_named_by_its_place(fitted, run):
    told = run("predict", fitted.folder, "a stupid lecture", "", "  ")
    assert told.returncode == 2 and "ITEM 2: ''" in told.stderr and "ITEM 3: '  '" in told.stderr


# Check


def test_every_trouble_of_a_table_is_named_by_its_row(tmp_path):
    pairs = sentences()[:60]
    rows = [*pairs, ("", "good"), ("   ", "bad"), pairs[0], (pairs[1][0].upper() + "!", pairs[1][1]), (pairs[2][0], "bad")]
    found = {finding.kind: finding for finding in check(write_table(tmp_path / "table.csv", rows))}
    assert "2 rows without an item: row-000060 (line 62), row-000061 (line 63)" in found["missing"].message
    assert set(found["duplicate"].items) == {"row-000000", "row-000062", "row-000002", "row-000064"}
    assert set(found["near_duplicate"].items) == {"row-000001", "row-000063"}
    assert "at least 80% of the runs of 8 characters in common" in found["near_duplicate"].message
    assert set(found["label_conflict"].items) == {"row-000002", "row-000064"}
    assert check(sentences()[:60]) == []


def test_leaks_across_the_split_of_the_data_are_told(tmp_path):
    rows = [(text, label, "test" if number % 4 == 3 else "train") for number, (text, label) in enumerate(sentences()[:80])]
    rows.append((rows[3][0] + " .", rows[3][1], "train"))
    found = {finding.kind: finding for finding in check(write_table(tmp_path / "t.csv", rows, ("text", "label", "split")))}
    assert set(found["leak"].items) == {"row-000003", "row-000080"} and "1 held-out item" in found["leak"].message


def test_files_that_are_no_texts_are_named_and_left_out(tmp_path):
    for number, (text, label) in enumerate(sentences()[:60]):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{number:03d}.txt").write_text(text)
    (tmp_path / "good" / "empty.txt").touch()
    (tmp_path / "good" / "blank.txt").write_text(" \n ")
    (tmp_path / "bad" / "latin.txt").write_bytes(b"ok\nna\xefve")
    (tmp_path / "bad" / "long.txt").write_text("x" * 1_000_000)
    found = {finding.kind: finding for finding in check(tmp_path)}
    assert set(found) == {"empty", "unreadable", "unknown_tokens"}
    assert found["unknown_tokens"].items == ("bad/long.txt",)
    assert set(found["empty"].items) == {"good/empty.txt", "good/blank.txt"}
    assert "2 items without content: " in found["empty"].message and "holds only white space" in found["empty"].message
    assert "bad/latin.txt (line 2 is no UTF-8 (byte 0xef)" in found["unreadable"].message


def test_a_script_that_the_tokenizer_does_not_know_is_told():
    # Cuneiform, of which the vocabulary has no sign.
    strange = [("".join(chr(0x12000 + (number * 7 + step) % 600) + " " for step in range(12)), "x") for number in range(30)]
    found = {finding.kind: finding for finding in check([*strange, *sentences()[:40]])}
    assert re.match(r"\d+% of the tokens of 70 texts looked at are unknown", found["unknown_tokens"].message)
    assert len(found["unknown_tokens"].items) == 30


# Refused


def test_backbones_of_the_other_modality_are_refused_with_suitable_ones(pictures):
    with pytest.raises(BackboneError, match="'all-minilm-l6-v2' takes text items, and these are image items") as caught:
        check(pictures, backbone="all-minilm-l6-v2")
    assert "efficientnet-lite0" in caught.value.expected
    with pytest.raises(BackboneError, match="'efficientnet-lite0' takes image items, and these are text items") as caught:
        check(sentences(), backbone="efficientnet-lite0")
    assert "all-minilm-l6-v2" in caught.value.expected and "hf:" in caught.value.expected


def test_settings_of_images_are_refused_for_texts():
    with pytest.raises(SettingError, match="image_size is 64, and backbone 'all-minilm-l6-v2' takes text items"):
        headstart.fit(sentences(), image_size=64)
    with pytest.raises(SettingError, match="texts cannot be fitted by 'squash'") as caught:
        headstart.fit(sentences(), geometry="squash")
    assert "head+tail" in caught.value.expected


def test_invalid_utf8_in_a_table_is_named_by_its_line(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"text,label\nfine,a\nna\xefve,b\n")
    with pytest.raises(DataError, match="line 3 holds the byte 0xef, which is not UTF-8"):
        check(tmp_path / "t.csv")


# Embed


def test_embedding_takes_the_backbone_of_what_it_is_given(tmp_path, table):
    texts = [text for text, _ in sentences()[:6]]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    of_list, of_folder = embed(texts), embed(tmp_path)
    assert of_list.spec.info.name == of_folder.spec.info.name == "all-minilm-l6-v2"
    assert np.array_equal(of_list.features("last"), of_folder.features("last"))
    assert of_list.ids == tuple(f"row-{number:06d}" for number in range(6))
    assert np.array_equal(embed([str(tmp_path / f"{number}.txt") for number in range(6)]).vectors, of_list.vectors)
    told = embed_to_file(table, tmp_path / "f.parquet")
    assert (told["items"], told["width"], told["unreadable"]) == (145, 384, {})
    assert embed(texts, geometry="windows").preprocess.fitting == "windows"


def test_what_is_gathered_without_labels(tmp_path, pictures):
    assert gather(pictures / "rings")[1] == "image"
    (tmp_path / "a.txt").write_text("a text")
    assert gather(tmp_path / "a.txt") == ((Sample(id=str(tmp_path / "a.txt"), item=tmp_path / "a.txt"),), "text")
    assert gather(["one text", "one text"])[0] == (
        Sample(id="row-000000", item="one text"), Sample(id="row-000001", item="one text"),
    )  # fmt: skip
    assert gather(["x.jpg"])[1] == "image" and gather([tmp_path / "a.txt"])[1] == "text"
    assert gather(["x.jpg"], backbone="all-minilm-l6-v2")[1] == "text"
    assert gather([("a text", "label"), ("b text", "other")])[1] == "text"
    with pytest.raises(DataError, match="path of the data is empty"):
        gather("")


def test_features_of_texts_for_scikit_learn():
    texts = [text for text, _ in sentences()[:6]]
    extractor = FeatureExtractor("all-minilm-l6-v2").fit(texts)
    assert extractor.n_features_out_ == 384
    assert np.array_equal(extractor.transform(texts), embed(texts).features("last"))
    with pytest.raises(SettingError, match="texts cannot be fitted by 'pad'"):
        FeatureExtractor("all-minilm-l6-v2", geometry="pad").fit(texts)


def test_it_works_offline(fitted, run_python):
    code = "import socket, sys, headstart\ndef refuse(*_): raise OSError('no network')\nsocket.socket.connect = refuse\n"
    code += "print(headstart.load(sys.argv[1]).predict('a lovely film')[0].label)"
    done = run_python(code, fitted.folder, HEADSTART_OFFLINE="1", HF_HUB_OFFLINE=os.environ.get("HF_HUB_OFFLINE", "1"))
    assert done.stdout.strip() == "good", done.stderr
