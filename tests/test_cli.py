"""The command line as a contract: one JSON object on stdout, known keys, known exit statuses, tables for people."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import headstart
from commands import PROGRAM, run, run_here
from exact import exactly
from headstart.features.store import info

CLASSES = ["blobs", "checks", "rings", "stripes"]

SUMMARY = [
    "artifact", "modality", "task", "backbone", "strategy", "labels", "counts", "test", "floor", "majority_accuracy", "gate",
    "seconds", "items_per_second", "cache", "warnings",
]  # fmt: skip
PARTS = {
    "counts": ["train", "test", "unreadable", "duplicate_groups"],
    "floor": ["head", "cv_accuracy"],
    "gate": ["tried", "kept", "code", "reason"],
    "cache": ["hits", "misses"],
}
SECONDS = {"read", "features", "head", "tune", "evaluate", "report", "total"}
METRICS = {
    "single": ["accuracy", "macro_f1", "log_loss", "ece"],
    "multi": ["macro_f1", "micro_f1", "mean_average_precision"],
    "value": ["mae", "rmse", "r2"],
}
HOSTILE = ["a,b", "q\"uo'te", "new\nline", "<script>alert(1)</script>", "😀 emoji", "../up", "=SUM(1)", "-dash"]


def told(process, status=0):
    """The one JSON object of a command that had nothing to say beside it."""
    assert (process.returncode, process.stderr) == (status, ""), process.stderr
    assert process.stdout.count("\n") == 1 and process.stdout.endswith("\n")
    return json.loads(process.stdout)


def write_table(path, rows, columns):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def check_summary(summary, task, out):
    assert list(summary) == SUMMARY
    for part, keys in PARTS.items():
        assert list(summary[part]) == keys, part
    assert SECONDS <= set(summary["seconds"]) <= SECONDS | {"check"}
    assert list(summary["test"]) == [key for name in METRICS[task] for key in (name, f"{name}_ci95")]
    for name in METRICS[task]:
        low, high = summary["test"][f"{name}_ci95"]
        assert low <= summary["test"][name] <= high
    assert (summary["artifact"], summary["task"], summary["modality"]) == (str(out), task, "image")
    assert (summary["backbone"], summary["strategy"]) == ("efficientnet-lite0", "extract")
    assert (summary["gate"]["tried"], summary["gate"]["kept"]) == ([], "extract")
    assert 0 < summary["seconds"]["total"] and summary["items_per_second"] > 0
    steps = [value for step, value in summary["seconds"].items() if step != "total"]
    assert sum(steps) == pytest.approx(summary["seconds"]["total"], abs=0.2)


# fit


def test_fit_prints_the_summary_as_one_json_object(artifact, pictures, tmp_path):
    out = tmp_path / "out.hs"
    summary = told(run("fit", pictures, "--out", out, "--json"))
    check_summary(summary, "single", out)
    assert summary["labels"] == CLASSES
    assert summary["counts"] == {"train": 96, "test": 24, "unreadable": 0, "duplicate_groups": 0}
    assert summary["majority_accuracy"] == 0.25
    assert 0.9 <= summary["floor"]["cv_accuracy"] <= 1
    assert summary["cache"] == {"hits": 120, "misses": 0}
    saved = json.loads((out / "report.json").read_text())["summary"]
    assert {**saved, "artifact": str(out), "seconds": None} == {**summary, "seconds": None}


def test_fit_of_a_multi_label_table(pictures, tmp_path):
    words = {"blobs": "soft", "checks": "straight|regular", "rings": "round|regular", "stripes": "straight|regular"}
    rows = [(path, words[path.parent.name]) for path in sorted(pictures.rglob("*.*"))]
    table = write_table(tmp_path / "table.csv", rows, ["path", "label"])
    summary = told(run_here("fit", table, "--out", tmp_path / "out.hs", "--json"))
    check_summary(summary, "multi", tmp_path / "out.hs")
    assert summary["labels"] == ["regular", "round", "soft", "straight"]
    assert summary["majority_accuracy"] is None
    predicted = told(run_here("predict", tmp_path / "out.hs", pictures / "rings" / "0.png", "--json"))["predictions"][0]
    assert list(predicted) == ["item", "label", "probability", "probabilities", "set", "outlier", "labels"]
    assert sorted(predicted["labels"]) == ["regular", "round"]
    process = run_here("predict", tmp_path / "out.hs", pictures / "rings" / "0.png", "--format", "csv")
    ((item, labels, probabilities),) = list(csv.reader(io.StringIO(process.stdout)))[1:]
    assert item.endswith("0.png") and sorted(labels.split("|")) == ["regular", "round"]
    assert all(0.3 < float(each) <= 1 for each in probabilities.split("|"))


def test_fit_of_values(pictures, tmp_path):
    rows = [(path, CLASSES.index(path.parent.name) + 0.5) for path in sorted(pictures.rglob("*.*"))]
    table = write_table(tmp_path / "table.csv", rows, ["path", "roughness"])
    words = ("--task", "value", "--label-column", "roughness")
    summary = told(run_here("fit", table, "--out", tmp_path / "out.hs", *words, "--json"))
    check_summary(summary, "value", tmp_path / "out.hs")
    assert summary["labels"] == [] and summary["majority_accuracy"] is None
    predicted = told(run_here("predict", tmp_path / "out.hs", pictures / "rings" / "0.png", "--json"))["predictions"][0]
    assert list(predicted) == ["item", "value", "outlier"]
    assert predicted["value"] == pytest.approx(2.5, abs=1)
    process = run_here("predict", tmp_path / "out.hs", pictures / "rings" / "0.png")
    assert process.stdout.splitlines()[0].split() == ["item", "value"]
    evaluated = told(run_here("evaluate", tmp_path / "out.hs", table, "--label-column", "roughness", "--json"))
    assert [name for name in evaluated["test"] if not name.endswith("_ci95")] == METRICS["value"]


def test_fit_tells_people_what_matters(artifact, pictures, tmp_path):
    process = run_here("fit", pictures, "--out", tmp_path / "out.hs")
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.replace("\xa0", " ").splitlines()
    assert lines[0].startswith(("100 % of 24 test images", "96 % of 24 test images", "92 % of 24 test images"))
    assert "95 % interval" in lines[0] and "would get 25 %" in lines[0]
    assert "120 from the cache" in process.stdout and f"report  {tmp_path / 'out.hs' / 'report.html'}" in process.stdout
    assert len(lines) <= 8


def test_quiet_is_quiet(artifact, pictures, tmp_path):
    process = run_here("fit", pictures, "--out", tmp_path / "out.hs", "--quiet")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert (tmp_path / "out.hs" / "model.onnx").is_file()


def test_every_option_of_fit_reaches_the_model(pictures, tmp_path):
    rows = [
        (path, path.parent.name, f"g{int(path.stem) // 2}", "test" if int(path.stem) >= 24 else "train")
        for path in sorted(pictures.rglob("*.*"))
    ]
    table = write_table(tmp_path / "table.csv", rows, ["where", "what", "whose", "side"])
    words = ["--item-column", "where", "--label-column", "what", "--group-column", "whose", "--split-column", "side"]
    words += ["--merge-labels", "checks=stripes", "--merge-labels", "blobs=rings", "--balance", "weights"]
    words += ["--geometry", "pad", "--budget", "1s", "--seed", "5", "--modality", "image", "--task", "single"]
    words += ["--backbone", "efficientnet-lite0", "--strategy", "auto", "--head", "linear", "--offline", "--json"]
    words += ["--epochs", "3", "--batch-size", "8", "--learning-rate", "0.01", "--classical", "auto", "--precision", "float32"]
    words += ["--item-root", str(tmp_path), "--encoding", "utf-8"]
    summary = told(run_here("fit", table, "--out", tmp_path / "out.hs", *words))
    assert summary["labels"] == ["rings", "stripes"]
    assert (summary["counts"]["train"], summary["counts"]["test"]) == (96, 24)
    settings = json.loads((tmp_path / "out.hs" / "headstart.json").read_text())["settings"]
    assert settings == {
        "modality": "image", "task": "single", "backbone": "efficientnet-lite0", "strategy": "auto", "balance": "weights",
        "head": "linear", "geometry": "pad", "image_size": None, "budget": "1s", "seed": 5, "item_column": "where",
        "label_column": "what", "group_column": "whose", "split_column": "side",
        "merge_labels": [["checks", "stripes"], ["blobs", "rings"]], "epochs": 3, "batch_size": 8, "learning_rate": 0.01,
        "find_learning_rate": False, "tuning": [], "resume": False, "hidden": None, "dropout": None,
        "classical": "auto", "context": None, "precision": "float32",
        "item_root": tmp_path.name, "encoding": "utf-8", "label_columns": None, "label_names": None, "label_separator": None,
    }  # fmt: skip


def test_a_second_source_by_option(draw_folder, pictures, tmp_path):
    draw_folder(tmp_path / "other", per_class=2, first=60)
    summary = told(run_here("fit", pictures, "--test", tmp_path / "other", "--out", tmp_path / "out.hs", "--json"))
    assert (summary["counts"]["train"], summary["counts"]["test"]) == (120, 8)


def test_shown_warnings_keep_to_a_line_or_two(pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    for number in range(1, 30, 3):
        shutil.copy(data / "rings" / f"{number}.jpg", data / "blobs" / f"wrong\x1b[31m {number}.jpg")
    process = run_here("fit", data, "--out", tmp_path / "out.hs")
    assert process.returncode == 0
    warnings = [line for line in process.stdout.splitlines() if line.startswith("  ! ")]
    assert len(warnings) >= 2 and all(len(line) < 260 for line in warnings)
    assert "\x1b" not in process.stdout


# predict


def test_predict_prints_json(artifact, pictures):
    process = run("predict", artifact, pictures / "rings" / "0.png", pictures / "stripes", "--json")
    predictions = told(process)["predictions"]
    assert len(predictions) == 31
    first = predictions[0]
    assert list(first) == ["item", "label", "probability", "probabilities", "set", "outlier"]
    assert (first["item"], first["label"]) == (str(pictures / "rings" / "0.png"), "rings")
    assert (first["set"], first["outlier"]) == ([], False)
    assert first["probability"] == first["probabilities"]["rings"] == max(first["probabilities"].values())
    assert list(first["probabilities"].values()) == sorted(first["probabilities"].values(), reverse=True)
    assert {prediction["label"] for prediction in predictions[1:]} == {"stripes"}
    assert told(run("predict", artifact, pictures / "rings" / "0.png", "--format", "json"))["predictions"] == [first]


def test_predict_prints_a_table_and_csv(artifact, pictures):
    items = [pictures / "rings" / "0.png", pictures / "checks" / "1.jpg"]
    table = run_here("predict", artifact, *items).stdout.splitlines()
    assert table[0].split() == ["item", "label", "probability"]
    assert [line.split()[:2] for line in table[1:]] == [[str(items[0]), "rings"], [str(items[1]), "checks"]]
    assert len({line.rindex(word) for line, word in zip(table, ("label", "rings", "checks"), strict=True)}) == 1
    rows = list(csv.DictReader(io.StringIO(run_here("predict", artifact, *items, "--format", "csv").stdout)))
    assert [(row["item"], row["label"]) for row in rows] == [(str(items[0]), "rings"), (str(items[1]), "checks")]
    assert all(0.5 < float(row["probability"]) <= 1 for row in rows)


def test_a_file_on_stdin_is_told_from_names_of_files(artifact):
    process = run_here("predict", artifact, "-", stdin="RIFF\0\0\0\0WAVEfmt \n\0")
    assert process.returncode != 0
    assert "stdin holds bytes 0, as files do" in process.stderr
    assert "name the file itself in place of -" in process.stderr


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_predict_reads_items_from_stdin(artifact, pictures, end):
    lines = [f"{pictures / 'rings' / '0.png'}", "", f"{pictures / 'checks' / '1.jpg'}"]
    process = run("predict", artifact, "-", "--format", "csv", stdin=end.join(lines) + end)
    assert process.returncode == 0, process.stderr
    assert [row["label"] for row in csv.DictReader(io.StringIO(process.stdout))] == ["rings", "checks"]


def test_predict_labels_what_it_can_and_names_the_rest(artifact, pictures, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    items = [tmp_path / "broken.jpg", pictures / "rings" / "0.png", tmp_path / "absent.jpg"]
    process = run_here("predict", artifact, *items, "--format", "csv")
    assert process.returncode == 2
    assert [row["label"] for row in csv.DictReader(io.StringIO(process.stdout))] == ["rings"]
    assert "DataError: 2 items cannot be read:" in process.stderr and "absent.jpg: there is no such file" in process.stderr
    process = run_here("predict", artifact, *items, "--json")
    answer = json.loads(process.stdout)
    assert (process.returncode, process.stderr) == (2, "")
    assert set(answer["unreadable"]) == {str(items[0]), str(items[2])}
    assert [prediction["label"] for prediction in answer["predictions"]] == ["rings"]


def test_nothing_readable_makes_no_table(artifact, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    process = run_here("predict", artifact, tmp_path / "broken.jpg")
    assert (process.returncode, process.stdout) == (2, "") and "1 item cannot be read" in process.stderr
    rows = run_here("predict", artifact, tmp_path / "broken.jpg", "--format", "csv").stdout
    assert rows == "item,label,probability\n"  # a program is told the columns all the same


def test_a_reader_that_has_seen_enough_is_no_error(artifact, pictures):
    command = [PROGRAM, "predict", str(artifact), str(pictures), "--format", "csv"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (0, b"")


def test_output_that_cannot_show_a_label_is_no_error(draw, tmp_path):
    pairs = [(draw(label, number), f"{label} 😀") for label in ("rings", "stripes") for number in range(30)]
    headstart.fit(pairs, out=tmp_path / "out.hs")
    item = tmp_path / "blümchen.png"
    pairs[0][0].save(item)
    for words in (["--json"], ["--format", "csv"], []):
        process = run("predict", tmp_path / "out.hs", item, *words, PYTHONIOENCODING="ascii")
        assert (process.returncode, process.stderr) == (0, "")
        assert process.stdout.isascii() or words == ["--format", "csv"]  # which is UTF-8 everywhere
        assert "csv" not in words or f"{item},rings 😀," in process.stdout
    process = run("predict", tmp_path / "out.hs", item, "--json", PYTHONIOENCODING="ascii")
    (prediction,) = json.loads(process.stdout)["predictions"]
    assert (prediction["label"], prediction["item"]) == ("rings 😀", str(item))


def test_a_file_name_that_is_no_text_is_no_error(artifact, draw, tmp_path):
    item = os.fsencode(tmp_path) + b"/by\xffte.png"
    with open(item, "wb") as file:  # noqa: PTH123 - a name in bytes
        draw("rings", 70).save(file, "PNG")
    for words in (["--json"], ["--format", "csv"], []):
        process = run("predict", artifact, tmp_path, *words)
        assert (process.returncode, process.stderr) == (0, "")
        assert "rings" in process.stdout and "by\\udcffte.png" in process.stdout


# Label text that would break a careless program


@pytest.fixture(scope="module")
def hostile(draw_folder, draw, tmp_path_factory):
    """A table with such labels, and what a process of its own made of it."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = []
    for number, label in enumerate(HOSTILE):
        for each in range(7):
            place = folder / f'{number}-{each} "<b>,.png'
            draw(CLASSES[number % 4], 400 + 10 * number + each).save(place)
            rows.append((place.name, label))
    table = write_table(folder / "table.csv", rows, ["path", "label"])
    summary = told(run("fit", table, "--out", folder / "out.hs", "--json", "--label-column", "label"))
    return folder, rows, summary


def test_hostile_labels_come_through_fit(hostile):
    folder, _, summary = hostile
    assert sorted(summary["labels"]) == sorted(HOSTILE)
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".png") == ["out.hs", "table.csv"]
    with (folder / "out.hs" / "splits.csv").open(encoding="utf-8", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} == set(HOSTILE)


def test_hostile_labels_are_text_in_the_report(hostile):
    folder, _, _ = hostile
    page = (folder / "out.hs" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "😀 emoji" in page and "<b>" not in page.replace("<b></b>", "")
    card = (folder / "out.hs" / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in card


@pytest.mark.parametrize("words", [["--json"], ["--format", "csv"]])
def test_hostile_labels_come_through_predict(hostile, words):
    folder, rows, _ = hostile
    process = run("predict", "out.hs", *(f"./{name}" for name, _ in rows), *words, cwd=folder)
    assert (process.returncode, process.stderr) == (0, "")
    if words == ["--json"]:
        found = [
            (each["item"], each["label"], set(each["probabilities"])) for each in json.loads(process.stdout)["predictions"]
        ]
        assert all(labels == set(HOSTILE) for _, _, labels in found)
    else:
        # What a spreadsheet would run stands behind an apostrophe.
        found = [(each["item"], each["label"].removeprefix("'"), None) for each in csv.DictReader(io.StringIO(process.stdout))]
    assert [item for item, _, _ in found] == [f"./{name}" for name, _ in rows]
    assert {label for _, label, _ in found} <= set(HOSTILE)
    right = np.mean([label == truth for (_, label, _), (_, truth) in zip(found, rows, strict=True)])
    assert right > 0.5  # each pattern has two names; the pictures it learned from tell them apart


def test_a_table_for_people_keeps_one_line_a_row(hostile):
    folder, rows, _ = hostile
    process = run_here("predict", "out.hs", *(f"./{name}" for name, _ in rows), cwd=folder)
    assert len(process.stdout.splitlines()) == len(rows) + 1
    evaluated = run_here("evaluate", "out.hs", "table.csv", "--json", cwd=folder)
    assert told(evaluated)["basis"] == "56 items"


# evaluate, check, embed, report, backbones, cache


def test_evaluate_prints_json_and_a_table(artifact, pictures):
    answer = told(run_here("evaluate", artifact, pictures, "--json"))
    assert list(answer) == ["test", "basis", "warnings"]
    assert list(answer["test"]) == [key for name in METRICS["single"] for key in (name, f"{name}_ci95")]
    assert answer["basis"] == "120 items"
    (warning,) = answer["warnings"]
    assert "the model learned from 96 of these 120 items" in warning and "on the 24 others: accuracy" in warning
    lines = run_here("evaluate", artifact, pictures).stdout.splitlines()
    assert lines[0] == "120 items"
    assert [line.split()[0] for line in lines[1:]] == [*METRICS["single"], "!"]


def test_check_prints_json(pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    (data / "rings" / "0.png").write_bytes(b"")
    shutil.copy(data / "blobs" / "1.jpg", data / "blobs" / "again.jpg")
    findings = told(run_here("check", data, "--json"), 2)["findings"]
    assert [list(finding) for finding in findings] == [["kind", "severity", "items", "message", "mend"]] * 2
    assert {finding["kind"]: (finding["severity"], finding["items"]) for finding in findings} == {
        "empty": ("warning", ["rings/0.png"]),
        "duplicate": ("warning", ["blobs/1.jpg", "blobs/again.jpg"]),
    }
    shown = run_here("check", data)
    assert (shown.returncode, shown.stderr) == (2, "")
    assert "warning (empty): 1 item without content: rings/0.png" in shown.stdout and "  mend: " in shown.stdout


def test_check_of_sound_data_says_so(artifact, pictures):
    assert told(run_here("check", pictures, "--json")) == {"findings": []}
    assert run_here("check", pictures).stdout.startswith("nothing found")


def test_embed_prints_json_and_names_what_it_leaves_out(artifact, pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    (data / "rings" / "0.png").write_bytes(b"")
    out = tmp_path / "f.parquet"
    answer = told(run_here("embed", data, "--out", out, "--block", "blocks.5", "--json"), 2)
    assert answer == {
        "items": 119, "width": answer["width"], "unreadable": {"rings/0.png": answer["unreadable"]["rings/0.png"]},
        "hits": 119, "misses": 0, "out": str(out),
    }  # fmt: skip
    rows = pyarrow.parquet.read_table(out)
    assert rows.num_rows == 119 and len(rows["vector"][0]) == answer["width"]
    shown = run_here("embed", data, "--out", out, "--overwrite")
    assert shown.stdout == f"119 vectors of 1280 numbers in {out} (119 from the cache)\n"
    assert shown.stderr.startswith("left out: rings/0.png: ")


def test_report_writes_the_page_again(artifact, tmp_path):
    folder = shutil.copytree(artifact, tmp_path / "copy.hs")
    process = run_here("report", folder)
    assert (process.returncode, process.stdout) == (0, f"{folder / 'report.html'}\n")
    assert run_here("predict", folder, "absent.jpg").returncode == 2


def test_backbones_lists_what_can_be_named(artifact):
    answer = told(run_here("backbones", "--json"))
    assert [(entry["name"], entry["modality"], entry["default"]) for entry in answer["bundled"]] == [
        ("efficientnet-lite0", "image", True), ("efficientnet-lite1", "image", False), ("efficientnet-lite2", "image", False),
        ("all-minilm-l6-v2", "text", True), ("wordllama-256", "text", False),
        ("speaker", "audio", True), ("speech-embedding", "audio", True), ("mfcc", "audio", True),
    ]  # fmt: skip
    assert answer["bundled"][0]["compiled"] and "efficientnet-lite0" in answer["compiled"]
    assert run_here("backbones").stdout.startswith("efficientnet-lite0")


def test_cache_info_prune_and_clear(artifact, pictures, tmp_path):
    root = os.environ["HEADSTART_CACHE"]
    answer = told(run_here("cache", "info", "--json"))
    assert list(answer) == ["root", "limit_bytes", "features"] and answer["root"] == root
    (kept,) = [each for each in answer["features"] if each["describe"].get("geometry") == "pad" and each["items"] >= 120][:1]
    assert list(kept) == ["fingerprint", "describe", "items", "bytes"] and kept["bytes"] > 0
    assert run_here("cache", "info").stdout.startswith(root)
    copy = tmp_path / "cache"
    shutil.copytree(root, copy)
    assert run_here("cache", "prune", HEADSTART_CACHE=str(copy)).stdout == "freed 0.0 MB\n"
    assert run_here("cache", "prune", "--limit", "0MB", HEADSTART_CACHE=str(copy)).returncode == 0
    assert told(run_here("cache", "info", "--json", HEADSTART_CACHE=str(copy)))["features"] == []
    assert told(run_here("backbones", "--json", HEADSTART_CACHE=str(copy)))["compiled"]
    assert run_here("cache", "clear", HEADSTART_CACHE=str(copy)).stdout.startswith("freed ")
    assert told(run_here("backbones", "--json", HEADSTART_CACHE=str(copy)))["compiled"] == []


# Exit statuses and signals


@pytest.mark.parametrize(
    "words",
    [
        ["fitt"],
        ["fit"],
        ["fit", "DATA"],
        ["fit", "DATA", "--out", "x.hs", "--bananas"],
        ["fit", "DATA", "--out", "x.hs", "--seed", "many"],
        ["predict", "x.hs"],
    ],
)
def test_wrong_words_end_with_two_and_the_usage(tmp_path, words):
    process = run_here(*words, cwd=tmp_path)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("Usage: ") and "headstart" in process.stderr and "\nError: " in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_ends_with_nought():
    process = run("--help")
    assert (process.returncode, process.stderr) == (0, "")
    for command in ("fit", "predict", "evaluate", "check", "embed", "report", "backbones", "cache"):
        assert re.search(rf"^│ {command} ", process.stdout, re.MULTILINE)


def test_the_help_of_fit_has_groups_of_options_and_an_example():
    process = run("fit", "--help", COLUMNS="100")
    groups = re.findall(r"^╭─ ([\w -]+?) ─", process.stdout, re.MULTILINE)
    assert {"Data", "Model", "Fine-tuning", "Output and running"} <= set(groups)
    assert "headstart fit photos/ --out photos.hs" in process.stdout
    assert process.stdout.index("--label-column") < process.stdout.index("─ Model")


def test_a_bug_ends_with_one_and_its_whole_story(run_python, artifact, pictures):
    code = (
        "import sys\nimport headstart.artifact.store as store\n"
        "def broken(path):\n    raise ZeroDivisionError('a bug')\n"
        "store.load = broken\nfrom headstart.cli import main\nsys.argv = ['headstart', *sys.argv[1:]]\nmain()\n"
    )
    process = run_python(code, "predict", artifact, pictures)
    assert process.returncode == 1
    assert "Traceback" in process.stderr and "ZeroDivisionError: a bug" in process.stderr


def test_an_error_is_one_json_object_where_json_is_asked_for(tmp_path):
    process = run_here("fit", tmp_path / "absent", "--out", tmp_path / "out.hs", "--json")
    assert process.returncode == 2
    assert process.stdout.count("\n") == 1
    error = json.loads(process.stdout)["error"]
    assert list(error) == ["kind", "what", "expected", "mend"]
    assert error["kind"] == "DataError" and "does not exist" in error["what"]
    assert process.stderr.startswith("DataError: ")


def stored_items():
    return sum(entry.items for entry in info(Path(os.environ["HEADSTART_CACHE"])))


def interrupted(number, words, is_under_way, **environment):
    """Start a command in a session of its own, as a terminal does, and signal it once it is in mid-work."""
    process = subprocess.Popen(
        [PROGRAM, *map(str, exactly(words))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | environment,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not is_under_way() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        # Ctrl-C reaches every process of the terminal; a supervisor signals the one it started.
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, complaint = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, complaint


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fit_leaves_nothing_half_written_and_keeps_its_features(artifact, draw_folder, tmp_path, number):
    data = draw_folder(tmp_path / "data", per_class=50, first=1000 + 100 * number)
    out = shutil.copytree(artifact, tmp_path / "out.hs")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    items = stored_items()
    words = ["fit", data, "--out", out, "--overwrite", "--json", "--geometry", "pad"]
    code, printed, complaint = interrupted(number, words, lambda: stored_items() > items + 8, HEADSTART_THREADS="1")
    assert (code, printed) == (130, "")
    assert complaint == "\ninterrupted: no model was written; the cache keeps the features computed so far.\n"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.hs"]
    kept = stored_items() - items
    assert 8 < kept < 200
    if number == signal.SIGINT:  # the next run goes on from there
        table = headstart.embed(data)
        assert (table.hits, table.misses) == (kept, 200 - kept)


@pytest.mark.long
def test_an_interrupted_compilation_leaves_nothing(draw_folder, tmp_path):
    cache, data = tmp_path / "cache", draw_folder(tmp_path / "data", per_class=3)
    # A bundled backbone is compiled too quickly to be interrupted.
    words = ["fit", data, "--out", tmp_path / "out.hs", "--backbone", "random:efficientnet-lite0"]
    seen = []

    def is_compiling():
        seen.extend(cache.glob("compiled/*"))
        return len(seen) > 25  # half a second after the first

    code, _, complaint = interrupted(signal.SIGINT, words, is_compiling, HEADSTART_CACHE=str(cache))
    assert code == 130 and "interrupted" in complaint and "Traceback" not in complaint
    assert list((cache / "compiled").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data"]
