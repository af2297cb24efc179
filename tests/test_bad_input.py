"""Bad input gets a clear error: exit status 2, what happened, what was expected, how to mend it; and nothing half-written."""

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import headstart
from commands import run, run_here
from headstart.features.store import info


def contents_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(process, kind, what):
    """The three parts of the error a process ended with."""
    assert process.returncode == 2, process.stderr
    assert process.stdout == ""
    lines = process.stderr.rstrip("\n").split("\n")
    assert lines[0].startswith(f"{kind}: ") and what in process.stderr, process.stderr
    expected, mend = ([line for line in lines if line.startswith(f"  {word}")] for word in ("Expected ", "Mend: "))
    assert len(expected) == len(mend) == 1 and lines[-1] == mend[0]
    assert len(expected[0]) > 15 and len(mend[0]) > 10
    assert "Traceback" not in process.stderr
    return process.stderr


@pytest.fixture
def place(tmp_path):
    """A current folder for a command."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def fit_refused(place, data, *words, kind="DataError", what, run=run, **environment):
    before = contents_of(place)
    entries = sorted(path.name for path in place.iterdir())
    complaint = refused(run("fit", data, "--out", "out.hs", *words, cwd=place, **environment), kind, what)
    assert sorted(path.name for path in place.iterdir()) == entries
    assert contents_of(place) == before
    return complaint


# The data


def test_nothing_at_the_path(place, pictures):
    shutil.copytree(pictures / "rings", place / "flowers")
    complaint = fit_refused(place, "flovers", what="'flovers' does not exist. Did you mean 'flowers'?")
    assert "a folder, a table" in complaint


def test_an_empty_folder(place):
    (place / "data" / "rings").mkdir(parents=True)
    complaint = fit_refused(place, "data", run=run_here, what="the folder 'data' is empty")
    assert "one folder per class" in complaint


def test_an_empty_path(place):
    fit_refused(place, "", run=run_here, what="the path of the data is empty")


def test_one_class(place, pictures):
    shutil.copytree(pictures / "rings", place / "data" / "rings")
    fit_refused(place, "data", run=run_here, what="all 30 items of folder data are of one class: 'rings'")


def test_files_in_no_class_folder(place, pictures):
    fit_refused(place, pictures / "rings", run=run_here, what="holds 30 image files but none in a class folder")


def test_a_file_instead_of_a_folder(place, pictures):
    complaint = fit_refused(
        place, pictures / "rings" / "0.png", run=run_here, what="is a single image file, not a set of labelled items"
    )
    assert "headstart predict ARTIFACT ITEM" in complaint


def test_a_file_of_no_known_kind(place):
    (place / "data.xlsx").write_bytes(b"PK\x03\x04")
    fit_refused(place, "data.xlsx", run=run_here, what="data.xlsx")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((), "has no column that is known to hold the labels; its columns are path, colour, day"),
        (("--label-column", "color"), "--label-column 'color' Did you mean 'colour'?"),
        (("--label-column", "colour", "--group-column", "who"), "--group-column 'who'"),
        (("--label-column", "colour", "--item-column", "paths"), "--item-column 'paths' Did you mean 'path'?"),
    ],
)
def test_a_missing_column(place, words, what):
    (place / "table.csv").write_text("path,colour,day\n1.png,red,Monday\n")
    complaint = fit_refused(place, "table.csv", *words, run=run_here, what=what)
    assert "path, colour, day" in complaint


def test_a_table_of_files_that_are_not_there(place):
    (place / "table.csv").write_text("path,label\n1.png,red\n2.png,blue\n")
    fit_refused(
        place, "table.csv", run=run_here, what="none of the 2 items that the table 'table.csv' names exists: 1.png, 2.png"
    )


def test_a_table_that_breaks_off(place):
    (place / "table.csv").write_text('path,label\n1.png,"red\n2.png,blue\n')
    fit_refused(place, "table.csv", run=run_here, what="the record that begins on line 2 cannot be read")


def test_all_images_unreadable(place, artifact):
    for label in ("daisy", "rose"):
        (place / "data" / label).mkdir(parents=True)
        for number in range(4):
            (place / "data" / label / f"{number}.jpg").write_text("no picture")
    complaint = fit_refused(place, "data", run=run_here, what="none of the 8 items can be read")
    assert "daisy/0.jpg" in complaint


def test_a_class_of_which_one_item_can_be_read(place, pictures):
    shutil.copytree(pictures, place / "data")
    for path in list((place / "data" / "rings").iterdir())[1:]:
        path.write_bytes(b"")
    fit_refused(place, "data", run=run_here, what="1 class with one sample only: 'rings'")


def test_labels_that_are_no_numbers(place, pictures):
    fit_refused(place, pictures, "--task", "value", run=run_here, what="120 labels that the value task cannot read as a number")


def test_a_test_source_that_does_not_exist(place, pictures):
    fit_refused(place, pictures, "--test", "absent", run=run_here, what="'absent' does not exist")


def test_a_test_source_with_another_class(place, pictures, draw):
    (place / "other" / "spirals").mkdir(parents=True)
    draw("rings", 90).save(place / "other" / "spirals" / "1.png")
    fit_refused(place, pictures, "--test", "other", run=run_here, what="'spirals' (1 item)")


def test_an_archive_that_leads_outside(place, pictures):
    shutil.make_archive(str(place / "data"), "tar", pictures)
    subprocess.run(["tar", "-rPf", "data.tar", "--transform", "s,.*,../../evil.png,", str(pictures / "rings" / "0.png")],
                   cwd=place, check=True)  # fmt: skip
    fit_refused(place, "data.tar", run=run_here, what="../../evil.png")
    assert not (place.parent / "evil.png").exists()


# The backbone and the options


def test_an_unknown_backbone(place, pictures):
    complaint = fit_refused(
        place, pictures, "--backbone", "efficientnet-lite", kind="BackboneError", run=run_here,
        what="there is no backbone called 'efficientnet-lite'",
    )  # fmt: skip
    assert all(f"efficientnet-lite{number}" in complaint for number in range(3)) and "nearest" in complaint


def test_a_backbone_of_another_modality(place):
    for label in ("yes", "no"):
        (place / "data" / label).mkdir(parents=True)
        for number in range(5):
            (place / "data" / label / f"{number}.txt").write_text(f"{label} {number}")
    complaint = fit_refused(
        place, "data", "--backbone", "efficientnet-lite0", kind="BackboneError", run=run_here,
        what="backbone 'efficientnet-lite0' takes image items, and these are text items",
    )  # fmt: skip
    assert "--backbone" in complaint
    sounds = place / "sounds"
    for label in ("a", "b"):
        (sounds / label).mkdir(parents=True)
        (sounds / label / "1.wav").write_bytes(b"RIFF")
    fit_refused(
        place, "sounds", "--backbone", "efficientnet-lite0", kind="BackboneError", run=run_here,
        what="backbone 'efficientnet-lite0' takes image items, and these are audio items",
    )  # fmt: skip


def test_a_checkpoint_that_is_not_there(place, pictures):
    fit_refused(
        place, pictures, "--backbone", "file:weights", kind="BackboneError", run=run_here, what="there is nothing at weights"
    )


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--task", "singel"), "task is 'singel'"),
        (("--balance", "heavy"), "balance is 'heavy'"),
        (("--strategy", "ful"), "strategy is 'ful'"),
        (("--budget", "soon"), "budget is 'soon'"),
        (("--context", "64"), "the task is 'auto', and --context is given"),
        (
            ("--task", "generate", "--head", "linear", "--image-size", "64"),
            "the task is 'generate', and --head, --image-size is given",
        ),
        (("--budget", "0s"), "budget is '0s', no time at all"),
        (("--image-size", "5"), "image_size is 5"),
        (("--seed", "-1"), "seed is -1"),
        (("--merge-labels", "rings"), "--merge-labels 'rings' names no pair"),
    ],
)
def test_an_option_that_cannot_be(place, pictures, words, what):
    fit_refused(place, pictures, *words, kind="SettingError", run=run_here, what=what)


def test_a_label_to_merge_that_nobody_has(place, pictures):
    fit_refused(
        place, pictures, "--merge-labels", "ring=checks", run=run_here, what="no item has the label 'ring' that is to be merged"
    )


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("HEADSTART_THREADS", "HEADSTART_THREADS is 'lots', which is no number of threads"),
        ("HEADSTART_CACHE_LIMIT", "HEADSTART_CACHE_LIMIT is 'lots', which is no size"),
    ],
)
def test_an_environment_that_cannot_be(place, artifact, pictures, name, what):
    fit_refused(place, pictures, kind="SettingError", run=run_here, what=what, **{name: "lots"})


# Where it is to be written


@pytest.mark.parametrize("kind", ["folder", "file", "data"])
def test_an_output_that_exists_and_is_no_model(place, pictures, kind):
    out = place / "out.hs"
    if kind == "file":
        out.write_text("precious")
    else:
        shutil.copytree(pictures / "rings", out / "rings" if kind == "data" else out)
    before = contents_of(place)
    process = run_here("fit", pictures, "--out", "out.hs", cwd=place)
    refused(process, "ArtifactError", "out.hs exists and is not a saved model")
    assert contents_of(place) == before
    assert [path.name for path in place.iterdir()] == ["out.hs"]


@pytest.mark.parametrize("out", [".", "", "..", "/"])
def test_an_output_without_a_name(place, pictures, out):
    refused(run_here("fit", pictures, "--out", out, cwd=place), "ArtifactError", "is no name for a saved model")
    assert list(place.iterdir()) == []


def test_an_output_below_a_file(place, pictures):
    (place / "file").write_text("precious")
    process = run_here("fit", pictures, "--out", "file/out.hs", cwd=place)
    refused(process, "ArtifactError", "cannot be written: Not a directory")
    assert contents_of(place) == {Path("file"): b"precious"}


def limit_files_to(num_bytes):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


@pytest.mark.parametrize("older", [False, True])
def test_a_disk_that_is_full(place, artifact, pictures, older):
    """No file can grow beyond 4 MB, as if the disk had no more: the network is larger."""
    if older:
        shutil.copytree(artifact, place / "out.hs")
    before = contents_of(place)
    process = run("fit", pictures, "--out", "out.hs", "--seed", "1", "--overwrite", cwd=place, before=limit_files_to(4 << 20))
    complaint = refused(process, "ArtifactError", "cannot be written: File too large")
    assert "free some space" in complaint
    assert contents_of(place) == before
    assert [path.name for path in place.iterdir()] == (["out.hs"] if older else [])


@pytest.mark.long
def test_a_disk_that_is_full_while_the_network_is_compiled_is_not_held_against_the_network(place, pictures):
    cache = place.parent / "cache"
    words = ("fit", pictures, "--out", "out.hs", "--backbone", "random:test_resnet", "--image-size", "64")
    process = run(*words, cwd=place, before=limit_files_to(100_000), HEADSTART_CACHE=str(cache))
    complaint = refused(process, "CacheError", "the compiled network cannot be written to")
    assert "File too large" in complaint and "HEADSTART_CACHE=" in complaint
    assert list(place.iterdir()) == list((cache / "compiled").iterdir()) == []


def test_a_file_of_features_on_a_full_disk(place, artifact, pictures):
    process = run("embed", pictures, "--out", "f.parquet", cwd=place, before=limit_files_to(100_000))
    refused(process, "SettingError", "f.parquet cannot be written")
    assert list(place.iterdir()) == []


# The saved model


@pytest.fixture
def copied(place, artifact):
    return shutil.copytree(artifact, place / "copy.hs")


@pytest.mark.parametrize(
    "name",
    ["head.safetensors", "headstart.json", "model.onnx", "report.json", "selftest.safetensors", "splits.csv"],
)
def test_a_changed_byte(copied, name):
    """One bit of any file that an answer depends on, manifest included."""
    content = bytearray((copied / name).read_bytes())
    # In the manifest the byte belongs to a label.
    position = content.index(b"checks") if name == "headstart.json" else len(content) // 2
    content[position] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(headstart.HeadstartError, match=f"{name} in .*copy.hs is not what was saved") as error:
        headstart.load(copied)
    assert error.value.expected and error.value.mend


def test_a_changed_byte_by_command(copied, pictures):
    with (copied / "model.onnx").open("r+b") as file:
        file.seek(5000)
        file.write(b"?")
    refused(run("predict", copied, pictures), "ArtifactError", "model.onnx in")
    for words in (["evaluate", copied, pictures], ["report", copied]):
        refused(run_here(*words), "ArtifactError", "model.onnx in")


def test_a_newer_format(copied, pictures):
    manifest = json.loads((copied / "headstart.json").read_text())
    (copied / "headstart.json").write_text(json.dumps(manifest | {"format": 99, "more": "unknown"}))
    complaint = refused(
        run_here("predict", copied, pictures), "ArtifactError", "has format 99, and this headstart reads up to 1"
    )
    assert "pip install --upgrade headstart" in complaint


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"format": "new"}', '{"format": 1}', "\x00"])
def test_a_manifest_that_is_none(copied, text):
    (copied / "headstart.json").write_text(text)
    with pytest.raises(headstart.HeadstartError, match="copy.hs is no (saved|whole) model"):
        headstart.load(copied)


def test_a_model_that_lacks_a_file(copied, pictures):
    (copied / "model.onnx").unlink()
    refused(run_here("predict", copied, pictures), "ArtifactError", "copy.hs lacks model.onnx")


@pytest.mark.parametrize("words", [["predict", "absent.hs", "x.jpg"], ["evaluate", "absent.hs", "x"], ["report", "absent.hs"]])
def test_no_model_at_the_path(place, words):
    refused(run_here(*words, cwd=place), "ArtifactError", "absent.hs is no saved model: there is nothing there")


def test_data_in_place_of_a_model(pictures):
    refused(run_here("predict", pictures, pictures), "ArtifactError", "is no saved model: it holds no headstart.json")


def test_nothing_to_predict(place, artifact):
    (place / "empty").mkdir()
    refused(run_here("predict", artifact, "empty", cwd=place), "DataError", "there is no item to predict")
    refused(run_here("predict", artifact, "-", cwd=place), "DataError", "there is no item to predict")


def test_an_unknown_format_or_block(place, artifact, pictures):
    refused(run_here("predict", artifact, pictures, "--format", "xml"), "SettingError", "format is 'xml'")
    process = run_here("embed", pictures, "--out", "f.parquet", "--block", "blocks.77", cwd=place)
    assert "blocks.0, blocks.1" in refused(process, "SettingError", "has no block 'blocks.77'")
    assert list(place.iterdir()) == []


def test_nothing_to_embed(place, artifact):
    for data in ("absent.jpg", "absent"):
        refused(run_here("embed", data, "--out", "f.parquet", cwd=place), "DataError", "absent")
    assert list(place.iterdir()) == []


# The cache


@pytest.mark.long
def test_a_cache_that_cannot_be_is_told_and_done_without(place, draw_folder):
    """A file stands where its folder should be: the network is compiled for this once, at any size, and nothing is cached."""
    draw_folder(place / "data", per_class=15, first=600)
    (place / "file").write_text("precious")
    words = ("fit", "data", "--out", "out.hs", "--backbone", "random:test_resnet", "--image-size", "96", "--json")
    process = run(*words, cwd=place, HEADSTART_CACHE=str(place / "file" / "cache"))
    assert (process.returncode, process.stderr) == (0, ""), process.stderr
    summary = json.loads(process.stdout)
    assert summary["cache"] == {"hits": 0, "misses": 60}
    assert any(warning.startswith("nothing is cached (") for warning in summary["warnings"])
    assert (place / "file").read_text() == "precious"
    assert "nothing is cached (" in (place / "out.hs" / "report.html").read_text()
    model = headstart.load(place / "out.hs")
    assert model.labels == ("blobs", "checks", "rings", "stripes")
    assert model.preprocess.image_size == model.manifest.settings["image_size"] == 96
    item = place / "data" / "rings" / "600.png"
    assert model.preprocess.pixels(item, name="600.png").shape == (96, 96, 3)
    assert model.predict(item)[0].label == "rings"


@pytest.fixture
def open_folder():
    """A folder other users may enter, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="headstart-test-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(folder)


# Permission bits stop no superuser, so its rights are laid down; what is loaded late lies where others may not look.
AS_NOBODY = """
import os, sys
import headstart.api.fit, headstart.artifact.graph, headstart.cli.show, headstart.report.page
import jinja2, matplotlib.backends.backend_svg, threadpoolctl
from headstart.cli import main
headstart.fit(sys.argv[1], strategy="extract")
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
sys.argv = ["headstart", "fit", "--strategy", "extract", *sys.argv[2:]]
main()
"""


def test_a_read_only_cache_is_used_and_told(artifact, pictures, draw_folder, run_python, open_folder):
    cache = shutil.copytree(os.environ["HEADSTART_CACHE"], open_folder / "cache")
    data = shutil.copytree(pictures, open_folder / "data")
    draw_folder(open_folder / "new", per_class=2, first=650)
    for label in ("blobs", "checks", "rings", "stripes"):
        for path in (open_folder / "new" / label).iterdir():
            shutil.copy(path, data / label)
    before = {entry.fingerprint: entry.items for entry in info(cache)}
    for path in [cache, *cache.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    (open_folder / "out").mkdir()
    (open_folder / "out").chmod(0o777)
    process = run_python(
        AS_NOBODY, pictures, data, "--out", open_folder / "out" / "out.hs", "--json", HEADSTART_CACHE=str(cache)
    )
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["cache"] == {"hits": 120, "misses": 8}
    assert any(warning.startswith("the feature store is only read, not written to (") for warning in summary["warnings"])
    assert {entry.fingerprint: entry.items for entry in info(cache)} == before


def test_items_that_vanish_during_the_run_are_named(place, artifact, draw_folder):
    """A process of its own, from which the last files are taken as soon as it has read the table."""
    data = draw_folder(place / "data", per_class=15, first=705)
    with (place / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows((path.relative_to(place), path.parent.name) for path in sorted(data.rglob("*.*")))
    code = (
        "import sys, pathlib\nimport headstart.api.fit as door\nread = door.read_with_findings\n"
        "def read_and_lose(*arguments, **options):\n"
        "    reading = read(*arguments, **options)\n"
        "    for path in sorted(pathlib.Path('data/stripes').iterdir())[-3:]:\n        path.unlink()\n"
        "    return reading\n"
        "door.read_with_findings = read_and_lose\n"
        "from headstart.cli import main\nsys.argv = ['headstart', *sys.argv[1:]]\nmain()\n"
    )
    command = [sys.executable, "-c", code, "fit", "table.csv", "--strategy", "extract", "--out", "out.hs", "--json"]
    process = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    summary = json.loads(process.stdout)
    assert summary["counts"] == {"train": 46, "test": 11, "unreadable": 3, "duplicate_groups": 0}
    assert sum(f"data/stripes/{name}" in summary["warnings"][0] for name in ("717.png", "718.jpg", "719.jpg")) == 3
    assert "there is no such file" in summary["warnings"][0]
