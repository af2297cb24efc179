"""How a command ends: its exit status, what it does without a stream, and what it shows of characters that steer a terminal."""

import csv
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import headstart
from commands import PROGRAM, run_here
from headstart.api.use import rewrite_report
from headstart.cli.output import printable
from headstart.cli.show import FAULTY, _no_formula, show_findings
from headstart.records import Finding


def start(words, **streams):
    """A real process, as what a shell closes or redirects is of the process."""
    return subprocess.run([PROGRAM, *map(str, words)], check=False, **streams)


# One rule of exit statuses


@pytest.fixture
def few(draw_folder, tmp_path):
    return draw_folder(tmp_path / "few", per_class=3)


@pytest.fixture
def partly(few, tmp_path):
    """Labelled pictures of which one cannot be read."""
    folder = shutil.copytree(few, tmp_path / "partly")
    (folder / "rings" / "0.png").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", ["predict", "evaluate", "check", "embed"])
def test_a_command_that_could_not_use_some_items_does_the_rest_and_ends_with_2(
    artifact, few, partly, tmp_path, command, as_json
):
    def words(data):
        given = {"predict": [artifact, data], "evaluate": [artifact, data], "check": [data],
                 "embed": [data, "--out", tmp_path / f"{data.name}.parquet"]}  # fmt: skip
        return [command, *given[command], *(["--json"] if as_json else [])]

    whole, part = run_here(*words(few)), run_here(*words(partly))
    assert (whole.returncode, part.returncode) == (0, 2)
    assert "0.png" in part.stdout + part.stderr
    if as_json:
        assert json.loads(whole.stdout).keys() <= json.loads(part.stdout).keys()
    assert command != "embed" or (tmp_path / "partly.parquet").is_file()


def test_rows_whose_files_are_missing_are_items_that_could_not_be_used(artifact, pictures, tmp_path):
    rows = [f"{pictures}/rings/{number}.jpg,rings" for number in (1, 2, 4)] + [f"{pictures}/blobs/1.jpg,blobs"]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows, f"{pictures}/rings/gone.jpg,rings"]))
    done = run_here("evaluate", artifact, tmp_path / "t.csv", "--json")
    assert done.returncode == 2
    assert "gone.jpg" in " ".join(json.loads(done.stdout)["warnings"])


@pytest.mark.parametrize(
    ("kind", "severity", "items", "status"),
    [
        ("tiny_class", "error", (), FAULTY),
        ("split_mismatch", "error", ("a.png",), FAULTY),
        ("truncated", "warning", ("a.png",), FAULTY),
        ("missing", "warning", ("a.png",), FAULTY),
        ("empty", "warning", (), 0),  # a class without items: nothing that was given is left out
        ("duplicate", "warning", ("a.png", "b.png"), 0),
        ("skipped", "info", (), 0),
    ],
)
def test_the_status_of_findings(capsys, kind, severity, items, status):
    finding = Finding(kind=kind, severity=severity, items=items, message="what", mend="how")
    for as_json in (False, True):
        assert show_findings([finding], as_json=as_json) == status
    assert show_findings([], as_json=False) == 0


def test_the_rule_is_in_the_help():
    assert "Exit status" in run_here("--help").stdout
    for command in ("predict", "evaluate", "check", "embed"):
        assert "Exit status 2" in " ".join(run_here(command, "--help").stdout.replace("│", " ").split())


# Streams that are closed or full


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["backbones", "--json"], ["--help"], ["cache", "info"], ["predict", "MODEL", "ITEM"],
                                   ["predict", "MODEL", "ITEM", "--format", "csv"]])  # fmt: skip
def test_a_full_output_is_told_in_words(artifact, pictures, words, unbuffered):
    given = {"MODEL": artifact, "ITEM": pictures / "rings" / "1.jpg"}
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = start([given.get(word, word) for word in words], stdout=full, stderr=subprocess.PIPE, text=True,
                     env=os.environ | {"PYTHONUNBUFFERED": unbuffered})  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("OutputError: standard output cannot be written: No space left on device.\n  Expected ")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("closed", "words", "status"),
    [
        (">&-", "predict MODEL ITEM", 0),
        (">&-", "backbones --json", 0),
        ("<&-", "predict MODEL ITEM", 0),
        ("<&-", "predict MODEL -", 2),
        ("2>&-", "predict MODEL absent.png", 2),
        ("<&- >&- 2>&-", "predict MODEL ITEM", 0),
        (">/dev/full 2>/dev/full", "backbones", 2),
    ],
)
def test_a_closed_stream_is_no_reason_to_crash(artifact, pictures, closed, words, status):
    words = words.replace("MODEL", str(artifact)).replace("ITEM", str(pictures / "rings" / "1.jpg"))
    done = subprocess.run(["sh", "-c", f"{PROGRAM} {words} {closed}"], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


# Interrupts


def test_interrupts_that_follow_each_other(run_python):
    """The first ends in good order, the second says so, the third ends at once; no traceback in any case."""
    code = """
import os, signal, sys
from headstart.cli import main as entry
from headstart.cli.main import main
module = sys.modules["headstart.cli.main"]
def run(arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
    finally:
        for _ in range(int(sys.argv[1]) - 1):
            os.kill(os.getpid(), signal.SIGTERM)
        print("cleaned up")
module._run = run
sys.argv = ["headstart", sys.argv[1]]
main()
"""
    for number, out in ((1, "cleaned up\n"), (2, "cleaned up\n"), (3, ""), (5, "")):
        said = run_python(code, number)
        assert (said.returncode, said.stdout) == (130, out), said.stderr
        assert "Traceback" not in said.stderr
        assert ("once more to end at once" in said.stderr) == (number > 1)


def test_a_shell_that_ignores_interrupts_is_obeyed(run_python):
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from headstart.cli.main import main
sys.argv = ["headstart", "--version"]
try:
    main()
except SystemExit:
    print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""
    assert run_python(code).stdout.splitlines()[-1] == "True"


# Characters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\a", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb\x08", "a\\rb\\x08"),
        ("invoice\u202egpj.exe", "invoice\\u202egpj.exe"),
        ("क्\u200dष 👩\u200d🚀 ü\xa0食\tx\ny", "क्\u200dष 👩\u200d🚀 ü\xa0食\tx\ny"),
    ],
)
def test_what_steers_a_terminal_is_shown(text, shown):
    assert printable(text) == shown


def test_names_of_files_do_not_steer_the_terminal(artifact, pictures, tmp_path):
    data = tmp_path / "da\x1b[31mta"
    for label in ("rings", "stripes"):
        (data / label).mkdir(parents=True)
        for number in (1, 2, 4, 5, 7):
            shutil.copy(pictures / label / f"{number}.jpg", data / label / f"\x1b]0;{number}\a.jpg")
    (data / "rings" / "\x1b[2J.png").write_bytes(b"")
    shutil.copy(data / "rings" / "\x1b]0;1\a.jpg", data / "stripes" / "copy\x9b.jpg")
    for words in (
        ["predict", artifact, data],
        ["evaluate", artifact, data],
        ["check", data],
        ["embed", data, "--out", tmp_path / "f.parquet"],
        ["predict", artifact, tmp_path / "absent\x1b[2J.jpg"],
    ):
        done = run_here(*words)
        assert done.returncode == 2
        assert "\\x1b" in done.stdout + done.stderr
        assert not set("\x1b\a\x9b") & set(done.stdout + done.stderr)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_csv_is_utf8_whatever_the_terminal(artifact, pictures, tmp_path, encoding):
    item = tmp_path / "食べ物 ü.jpg"
    shutil.copy(pictures / "rings" / "1.jpg", item)
    done = start(["predict", artifact, item, "--format", "csv"], capture_output=True,
                 env=os.environ | {"PYTHONIOENCODING": encoding})  # fmt: skip
    (row,) = csv.DictReader(io.StringIO(done.stdout.decode("utf-8")))
    assert row["item"] == str(item)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("-1.5", "-1.5"),
        ("+3", "+3"),
        ("a=1", "a=1"),
        ("", ""),
    ],
)
def test_a_cell_that_a_spreadsheet_would_run_is_text(cell, written):
    assert _no_formula(cell) == written


def test_a_folder_whose_name_the_locale_cannot_read_is_fitted(draw, tmp_path):
    """Its bytes come as lone surrogates, and every file of the model must take them."""
    data = tmp_path / os.fsdecode(b"d\xc3\xa4t\xe4")
    for label in ("rings", "stripes"):
        (data / label).mkdir(parents=True)
        for number in range(6):
            draw(label, number).save(data / label / os.fsdecode(b"\xf6%d.png" % number))
    out = tmp_path / os.fsdecode(b"m\xf6del.hs")
    headstart.fit(data, out=out, strategy="extract", geometry="pad", precision="float32")
    (first, *_), page = headstart.load(out).predict(data), (out / "report.html").read_text(encoding="utf-8")
    assert first.label in {"rings", "stripes"}
    assert "\\udcf6" in page or "\ufffd" in page or "?" in page
    rewrite_report(out)
    headstart.load(out).save(tmp_path / "copy.hs")
    assert json.loads((tmp_path / "copy.hs" / "report.json").read_text(encoding="utf-8"))
