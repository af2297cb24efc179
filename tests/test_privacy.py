"""Nothing is sent, and nothing is run, that the user did not ask for: no look-ups, no telemetry, no modules of their folder."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import headstart
from headstart.data.rows import path_ids
from headstart.data.source import read
from headstart.runtime import python_command

SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
SOURCES = Path(__file__).parents[1] / "src" / "headstart"

# Run in a network namespace without devices: whatever is sent has no route, and the kernel counts it.
COUNTING = """
import json, sys
def sent():
    wanted = {"Ip": ("OutRequests", "OutNoRoutes"), "Tcp": ("ActiveOpens",), "Udp": ("OutDatagrams",)}
    with open("/proc/net/snmp") as file:
        lines = [line.split() for line in file]
    total = 0
    for names, values in zip(lines[::2], lines[1::2]):
        found = dict(zip(names, values))
        total += sum(int(found[name]) for name in wanted.get(names[0].rstrip(":"), ()))
    with open("/proc/net/snmp6") as file:
        found = dict(line.split() for line in file)
    return total + int(found["Ip6OutRequests"]) + int(found["Ip6OutNoRoutes"])
before = sent()
"""
COMMANDS = """
from headstart.cli import main
ended = {}
for words in json.loads(sys.argv[1]):
    sys.argv = ["headstart", *words]
    try:
        main()
    except SystemExit as end:
        ended[words[0]] = end.code or 0
sys.stderr.write("\\n" + json.dumps({"sent": sent() - before, "ended": ended}))
"""
LOOK_UP = """
import socket
try:
    socket.getaddrinfo("example.org", 443)
except OSError:
    pass
sys.stderr.write("\\n" + json.dumps({"sent": sent() - before}))
"""
CONNECT = """
import socket
try:
    socket.create_connection(("192.0.2.1", 443), timeout=1)
except OSError:
    pass
sys.stderr.write("\\n" + json.dumps({"sent": sent() - before}))
"""


@pytest.fixture(scope="module")
def alone():
    """`alone(code, *arguments, home=...)` runs code in a process without a network, and gives the JSON of its last line."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("network namespaces need Linux and unshare")
    tried = subprocess.run(["unshare", "-rn", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this machine permits no network namespace: {tried.stderr.strip()}")

    def run(code, *arguments, home):
        # A user's environment: the runtime sends nothing where a variable such as CI or GITHUB_ACTIONS is set.
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR") if name in os.environ}
        process = subprocess.run(
            ["unshare", "-rn", sys.executable, "-c", COUNTING + code, *arguments],
            capture_output=True, text=True, check=False, env=environment | {"HOME": str(home)}, timeout=120,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        return json.loads(process.stderr.splitlines()[-1])

    return run


@pytest.mark.parametrize("code", [LOOK_UP, CONNECT], ids=["a look-up", "a connection"])
def test_the_count_notices(alone, tmp_path, code):
    assert alone(code, home=tmp_path)["sent"] > 0


def test_no_command_reaches_for_the_network(alone, artifact, pictures, tmp_path):
    folder = shutil.copytree(artifact, tmp_path / "m.hs")
    home = tmp_path / "home"
    home.mkdir()
    commands = [
        ["fit", pictures, "--out", tmp_path / "new.hs", "--strategy", "extract", "--geometry", "pad"],
        ["check", pictures],
        ["predict", folder, pictures / "rings" / "0.png"],
        ["evaluate", folder, pictures],
        ["embed", pictures, "--out", tmp_path / "f.parquet"],
        ["export", folder, "--out", tmp_path / "m.onnx"],
        ["report", folder],
        ["backbones"],
        ["cache", "info"],
    ]
    told = alone(COMMANDS, json.dumps([list(map(str, words)) for words in commands]), home=home)
    assert told["ended"] == {words[0]: 0 for words in commands}
    assert told["sent"] == 0
    assert [path for path in home.rglob("*") if re.search("microsoft|onnxruntime|deviceid", path.name, re.IGNORECASE)] == []


@pytest.mark.skipif(tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 32), reason="it had no telemetry on Linux")
def test_the_runtime_alone_would_keep_a_device_id(alone, tmp_path):
    """Else the test above would pass whatever is set."""
    alone('import onnxruntime; sys.stderr.write("\\n{}")', home=tmp_path)
    assert list(tmp_path.rglob("deviceid"))


def test_the_switches_are_set_first_and_inherited(run_python):
    code = """
import os, subprocess, sys
for name in sys.argv[2:]:
    os.environ.pop(name, None)
os.environ["DO_NOT_TRACK"] = "yes"
import headstart
assert "onnxruntime" not in sys.modules
show = "import os, sys; print([os.environ.get(name) for name in sys.argv[1:]])"
subprocess.run([sys.executable, "-c", show, *sys.argv[2:]], check=True)
"""
    said = run_python(code, "", *SWITCHES)
    assert said.stdout == "['1', '1', 'yes']\n", said.stderr


# Where the user keeps their files


@pytest.fixture
def home(tmp_path, draw_folder):
    """A home folder with pictures, and a table elsewhere that names them by their whole paths, one of them broken."""
    pictures = draw_folder(tmp_path / "home" / "ann-lee" / "pictures", per_class=15)
    (pictures / "rings" / "0.png").write_bytes(b"no picture")
    shutil.copy(pictures / "rings" / "1.jpg", pictures / "rings" / "copy.jpg")
    rows = [f"{path},{path.parent.name}" for path in sorted(pictures.rglob("*.*"))]
    rows += [f"{pictures}/rings/gone{number}.jpg,rings" for number in range(5)]
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "items.csv").write_text("\n".join(["path,label", *rows]))
    return pictures


def test_a_saved_model_does_not_say_where_the_items_were(home, tmp_path):
    model = headstart.fit(
        tmp_path / "table" / "items.csv", out=tmp_path / "m.hs", strategy="extract", geometry="pad", precision="float32"
    )
    for name in ("report.json", "report.html", "README.md", "splits.csv", "headstart.json"):
        assert "ann-lee" not in (tmp_path / "m.hs" / name).read_text(), name
    told = " ".join(model.report.warnings)
    assert "ann-lee" not in told and "rings/0.png" in told and "rings/gone2.jpg" in told and "gone3" not in told
    with (tmp_path / "m.hs" / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all((home / row["item"]).is_file() and row["item"] == row["id"] for row in rows)
    evaluation = headstart.evaluate(model, tmp_path / "table" / "items.csv")
    assert "ann-lee" not in " ".join(evaluation.warnings)


def test_findings_name_three_items_by_short_names(home, tmp_path):
    for number in range(6):
        (home / "blobs" / f"empty{number}.png").write_bytes(b"")
    with (tmp_path / "table" / "items.csv").open("a") as file:
        file.writelines(f"\n{home}/blobs/empty{number}.png,blobs" for number in range(6))
    done = subprocess.run(
        python_command("headstart", "check", str(tmp_path / "table" / "items.csv")), capture_output=True, text=True, check=False
    )
    assert "ann-lee" not in done.stdout
    assert "empty2" in done.stdout and "empty3" not in done.stdout
    assert {finding.kind for finding in headstart.check(tmp_path / "table" / "items.csv")} >= {"empty", "missing"}


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["/data/t/a/1.jpg", "/data/t/2.jpg"], ["a/1.jpg", "2.jpg"]),
        (["/home/ann/pics/a/1.jpg", "/home/ann/pics/b/1.jpg"], ["a/1.jpg", "b/1.jpg"]),
        (["/home/ann/a/1.jpg", "/data/t/a/1.jpg"], ["1.jpg", "a/1.jpg"]),
        (["/home/ann/a/1.jpg", "/home/bob/a/2.jpg"], ["1.jpg", "2.jpg"]),
        (["/home/ann/a/1.jpg", "/mnt/big/b/2.jpg", "/mnt/big/c/2.jpg"], ["1.jpg", "b/2.jpg", "c/2.jpg"]),
        (["/data/t/../u/a/1.jpg", "/data/u/b/1.jpg"], ["../u/a/1.jpg", "1.jpg"]),
        (["/1.jpg", "/etc/2.jpg"], ["1.jpg", "2.jpg"]),
        (["img/1.jpg", "2.jpg"], ["1.jpg", "2.jpg"]),
    ],
)
def test_ids_of_files_are_short(paths, ids, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = path_ids(map(Path, paths), Path("/data/t"))
    told = [found[Path(path)] for path in paths]
    assert told == ids or (told[-1] == "2.jpg" and told[0] == "img/1.jpg")
    assert not any(Path(id_).is_absolute() for id_ in told)


def test_a_table_named_by_a_relative_path_or_a_link(tmp_path, monkeypatch):
    (tmp_path / "ann-lee" / "img").mkdir(parents=True)
    (tmp_path / "link").symlink_to("ann-lee")
    for name in "ab":
        (tmp_path / "ann-lee" / "img" / f"{name}.txt").write_text(name)
    table = tmp_path / "ann-lee" / "t.csv"
    table.write_text(f"path,label\n{tmp_path}/ann-lee/img/a.txt,a\n{tmp_path}/ann-lee/img/b.txt,b\n")
    monkeypatch.chdir(tmp_path)
    for path in ("ann-lee/t.csv", "link/t.csv", table):
        assert [sample.id for sample in read(path).samples] == ["img/a.txt", "img/b.txt"]


# The user's own modules


@pytest.fixture
def crowded(tmp_path):
    """A folder with modules of the names of others; each leaves a mark when it is run."""
    for name in ("random.py", "copy.py", "json.py", "torch/__init__.py", "numpy/__init__.py", "headstart/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r}); raise RuntimeError({name!r})")
    return tmp_path


def test_a_process_of_ours_does_not_run_the_users_modules(crowded):
    shutil.rmtree(crowded / "headstart", ignore_errors=False)
    code = "import random, copy, json, numpy; print('theirs')"
    run = subprocess.run([sys.executable, "-c", code], cwd=crowded, capture_output=True, text=True, check=False)
    assert run.returncode and (crowded / "ran").exists(), "the test would not notice"
    (crowded / "ran").unlink()
    for command in (python_command("headstart", "cache", "info"), [sys.executable, "-m", "headstart", "backbones", "--json"]):
        done = subprocess.run(command, cwd=crowded, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not (crowded / "ran").exists()


def test_not_even_a_headstart_of_theirs(crowded):
    done = subprocess.run(python_command("headstart", "--version"), cwd=crowded, capture_output=True, text=True, check=False)
    assert done.stdout == f"headstart {version('headstart')}\n"
    assert not (crowded / "ran").exists()


def test_processes_are_started_by_one_function():
    starting = [path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py") if "sys.executable" in path.read_text()]
    assert starting == ["runtime.py"]


def test_the_module_is_the_command():
    said = subprocess.run([sys.executable, "-m", "headstart", "--help"], capture_output=True, text=True, check=False)
    assert said.returncode == 0
    assert "evaluate" in said.stdout
