"""What is deleted where a model is written: only what a manifest or a marker shows that Headstart wrote."""

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import headstart
from headstart.api.export import export
from headstart.api.use import embed_to_file
from headstart.api.workplace import open_in_place, workplace
from headstart.artifact.store import load, read_manifest, write
from headstart.errors import ArtifactError, HeadstartError, MissingPackageError, SettingError
from headstart.model.manifest import Manifest
from headstart.model.place import MARKER, check_replaceable, clear_work, move_into_place
from headstart.preprocess.items import UnreadableItemError


def contents(folder):
    """Every file below a folder, its bytes, and where links lead."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def saved(artifact, tmp_path):
    return shutil.copytree(artifact, tmp_path / "m.hs")


@pytest.fixture
def finish(artifact):
    """Do what a fit does once it is computed: write a whole model into its working folder, and put it in its place."""

    def finish_fit(out, *, overwrite=False, meanwhile=lambda: None):
        with workplace(out, resume=False, overwrite=overwrite) as folder:
            meanwhile()
            manifest = read_manifest(artifact)
            files = {name: (artifact / name).read_bytes() for name in manifest.files}
            write(folder, manifest, files)
            return open_in_place(folder, out, overwrite=overwrite)

    return finish_fit


# OUT


def test_a_model_is_replaced_only_when_that_is_asked_for(finish, tmp_path):
    out = tmp_path / "m.hs"
    finish(out)
    before = contents(tmp_path)
    with pytest.raises(ArtifactError, match="is a saved model already") as caught:
        finish(out)
    assert "--overwrite" in caught.value.mend and "overwrite=True" in caught.value.mend
    assert contents(tmp_path) == before
    place = (out / "headstart.json").stat().st_ino
    finish(out, overwrite=True)
    assert (out / "headstart.json").stat().st_ino != place
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.hs"]
    assert {path.name for path in out.iterdir()} == {*read_manifest(out).files, "headstart.json"}


def put_file(folder):
    (folder / "notes.txt").write_text("mine")


def put_folder(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("mine")


def put_link(folder):
    (folder / "link").symlink_to("/etc")


def put_git(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main")


def put_beside_logs(folder):
    (folder / "logs").mkdir()
    (folder / "logs" / "mine.txt").write_text("mine")


def put_folder_of_a_listed_name(folder):
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    (folder / "README.md" / "mine.txt").write_text("mine")


def break_manifest(folder):
    (folder / "headstart.json").write_text("{}")


@pytest.mark.parametrize(
    "put", [put_file, put_folder, put_link, put_git, put_beside_logs, put_folder_of_a_listed_name, break_manifest]
)
def test_what_a_user_put_into_a_model_stays_whatever_is_asked_for(finish, artifact, saved, tmp_path, put):
    put(saved)
    before = contents(tmp_path)
    for attempt in (
        lambda: finish(saved, overwrite=True),
        lambda: load(artifact).save(saved, overwrite=True),
        lambda: finish(saved),
    ):
        with pytest.raises(ArtifactError) as caught:
            attempt()
        assert str(saved) in caught.value.what
        assert contents(tmp_path) == before


def test_system_files_do_not_stop_a_replacement(finish, saved, tmp_path):
    (saved / ".DS_Store").write_bytes(b"\0")
    finish(saved, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.hs"]


def test_a_folder_that_is_no_model_is_refused_even_with_overwrite(finish, artifact, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = contents(tmp_path)
    for name in ("thesis", "file", "dangling"):
        for attempt in (
            lambda out: finish(out, overwrite=True),
            lambda out: load(artifact).save(out, overwrite=True),
            lambda out: headstart.fit("absent", out=out, overwrite=True),
        ):
            with pytest.raises(ArtifactError, match="exists and is not a saved model"):
                attempt(tmp_path / name)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("made", ["a folder with files", "a model", "a file"])
def test_what_appears_at_the_place_while_a_fit_runs_stays_and_so_does_the_new_model(finish, artifact, tmp_path, made):
    out = tmp_path / "m.hs"

    def meanwhile():
        match made:
            case "a folder with files":
                out.mkdir()
                (out / "notes.txt").write_text("mine")
            case "a model":
                load(artifact).save(out)
            case _:
                out.write_text("mine")

    with pytest.raises(ArtifactError, match="The new model is whole, in") as caught:
        finish(out, meanwhile=meanwhile)
    assert str(tmp_path / "m.hs.partial") in caught.value.mend
    assert out.is_file() or {"notes.txt", "model.onnx"} & {path.name for path in out.iterdir()}
    assert load(tmp_path / "m.hs.partial").labels == load(artifact).labels
    shutil.rmtree(out, ignore_errors=True)
    out.unlink(missing_ok=True)
    with pytest.raises(ArtifactError, match="is a finished model"):
        finish(out)
    assert load(tmp_path / "m.hs.partial").labels


def test_an_empty_folder_made_meanwhile_is_filled(finish, tmp_path):
    finish(tmp_path / "m.hs", meanwhile=(tmp_path / "m.hs").mkdir)
    assert load(tmp_path / "m.hs").labels


# OUT.partial


@pytest.mark.parametrize("made", ["folder", "checkpoints", "file", "link", "hidden file"])
def test_a_folder_of_the_users_own_where_a_fit_would_work_is_refused(finish, tmp_path, made):
    partial = tmp_path / "m.hs.partial"
    match made:
        case "file":
            partial.write_text("mine")
        case "link":
            (tmp_path / "elsewhere").mkdir()
            (tmp_path / "elsewhere" / "a.txt").write_text("mine")
            partial.symlink_to("elsewhere")
        case _:
            name = {"folder": "a.txt", "checkpoints": "checkpoints/full.pt", "hidden file": ".a"}[made]
            (partial / name).parent.mkdir(parents=True)
            (partial / name).write_text("mine")
    before = contents(tmp_path)
    for attempt in (finish, lambda out: finish(out, overwrite=True), lambda out: headstart.fit("absent", out=out)):
        with pytest.raises(ArtifactError, match="partial") as caught:
            attempt(tmp_path / "m.hs")
        assert "move" in caught.value.mend
        assert contents(tmp_path) == before


def test_what_a_user_put_where_a_fit_works_stays_when_the_fit_fails(tmp_path):
    out = tmp_path / "m.hs"
    with pytest.raises(ZeroDivisionError), workplace(out, resume=False) as folder:
        (folder / "history.csv").write_text("epoch")
        (folder / "mine.txt").write_text("mine")
        raise ZeroDivisionError
    assert contents(tmp_path) == {"m.hs.partial": None, "m.hs.partial/mine.txt": b"mine"}
    with pytest.raises(ArtifactError, match=r"'mine\.txt', which Headstart did not write"), workplace(out, resume=False):
        raise AssertionError
    assert (tmp_path / "m.hs.partial" / "mine.txt").read_text() == "mine"


def test_a_fit_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), workplace(tmp_path / "m.hs", resume=False) as folder:
        (folder / "logs" / "deep").mkdir(parents=True)
        (folder / "logs" / "deep" / "events").write_text("")
        raise ZeroDivisionError
    assert contents(tmp_path) == {}


def test_saving_a_copy_leaves_what_lies_beside_it(artifact, tmp_path):
    for name in ("copy.hs.partial", ".copy.hs.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    before = contents(tmp_path)
    model = load(artifact)
    for overwrite in (False, True):
        model.save(tmp_path / "copy.hs", overwrite=overwrite)
        assert before.items() <= contents(tmp_path).items()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".copy.hs.replaced", "copy.hs", "copy.hs.partial"]


def test_a_language_model_is_saved_as_any_other(artifact, tmp_path):
    """Beside a running fit to the same place, whose folder it once removed."""
    from headstart.language.model import LanguageModel

    model = LanguageModel(folder=artifact, manifest=read_manifest(artifact), backbone=None, report=None)
    with workplace(tmp_path / "m.hs", resume=False) as folder:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "full.pt").write_bytes(b"state")
        model.save(tmp_path / "m.hs")
        assert (folder / "checkpoints" / "full.pt").read_bytes() == b"state"
    with pytest.raises(ArtifactError, match="already"):
        model.save(tmp_path / "m.hs")
    model.save(tmp_path / "m.hs", overwrite=True)
    (tmp_path / "m.hs" / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"mine\.txt"):
        model.save(tmp_path / "m.hs", overwrite=True)


# Killed


KILLED = """
import sys, os, signal
from pathlib import Path
from headstart.api.workplace import open_in_place, workplace
from headstart.artifact.store import read_manifest, write
from headstart.model import place
artifact, out, where = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
renamed = []
def rename(self, target):
    os.rename(self, target)
    renamed.append(target)
    if len(renamed) == int(where[-1]):
        die()
    return target
with workplace(out, resume=False, overwrite=True) as folder:
    (folder / "logs").mkdir()
    (folder / "logs" / "events").write_text("")
    (folder / "history.csv").write_text("epoch")
    if where == "at work":
        die()
    manifest = read_manifest(artifact)
    write(folder, manifest, {name: (artifact / name).read_bytes() for name in manifest.files})
    if where == "before it moves":
        die()
    Path.rename = rename
    open_in_place(folder, out, overwrite=True)
"""


@pytest.mark.parametrize("where", ["at work", "before it moves", "after rename 1", "after rename 2"])
def test_a_fit_that_is_killed_leaves_a_model_and_the_next_one_cleans_up(finish, artifact, saved, tmp_path, run_python, where):
    before = contents(saved)
    said = run_python(KILLED, artifact, saved, where)
    assert said.returncode == -signal.SIGKILL, said.stderr
    left = [path for path in tmp_path.iterdir() if (path / "headstart.json").is_file()]
    assert any({key: found[key] for key in before} == before for found in map(contents, left) if before.keys() <= found.keys())
    with pytest.raises(ArtifactError, match="is a saved model already"):
        finish(saved)  # put back, if it was away
    assert load(saved).labels
    finish(saved, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.hs"]
    assert not (saved / MARKER).exists()


def test_two_that_begin_at_once_do_not_undo_each_other(tmp_path, run_python):
    code = """
import sys
from headstart.api.workplace import workplace
with workplace(sys.argv[1], resume=False) as folder:
    print("at work", flush=True)
    sys.stdin.read()
    raise SystemExit
"""
    command = [sys.executable, "-c", code, tmp_path / "m.hs"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "at work\n"
        before = contents(tmp_path)
        with pytest.raises(ArtifactError, match="another fit is at work"), workplace(tmp_path / "m.hs", resume=False):
            raise AssertionError
        assert contents(tmp_path) == before
        other.stdin.close()
    assert contents(tmp_path) == {}


# Names


@pytest.mark.parametrize("name", ["x" * 250, "x" * 300, "é" * 125, "a\0b", "x" * 5000])
def test_a_name_that_cannot_be_is_refused_before_any_work(name, tmp_path):
    with pytest.raises(ArtifactError, match="bytes|character") as caught:
        headstart.fit("absent", out=tmp_path / name)
    assert "name" in caught.value.mend or "path" in caught.value.mend
    assert contents(tmp_path) == {}


def test_the_longest_names_work(finish, artifact, tmp_path):
    finish(tmp_path / ("x" * 247))
    finish(tmp_path / ("x" * 247), overwrite=True)
    load(artifact).save(tmp_path / ("é" * 127))
    load(artifact).save(tmp_path / ("é" * 127), overwrite=True)
    export(artifact, tmp_path / ("食" * 80 + ".onnx"))
    with pytest.raises(SettingError, match="no name for a file"):
        export(artifact, tmp_path / ("x" * 300 + ".onnx"))
    with pytest.raises(SettingError, match="no name for a file"):
        embed_to_file(tmp_path, tmp_path / ("x" * 300 + ".parquet"))


# Other files


def test_export_and_embed_replace_a_file_only_when_that_is_asked_for(artifact, pictures, prefix, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        shutil.copy(pictures / "rings" / ("0.png" if not number else f"{number}.jpg"), few)
    (tmp_path / "f.parquet.partial").write_text("mine")
    for write_to in (
        lambda overwrite: export(artifact, tmp_path / "m.onnx", overwrite=overwrite),
        lambda overwrite: embed_to_file(few, tmp_path / "f.parquet", overwrite=overwrite),
    ):
        write_to(False)
        before = contents(tmp_path)
        with pytest.raises(SettingError, match="exists") as caught:
            write_to(False)
        assert "--overwrite" in caught.value.mend
        assert contents(tmp_path) == before
        write_to(True)
    assert (tmp_path / "f.parquet.partial").read_text() == "mine"
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(SettingError, match="is no file"):
        export(artifact, tmp_path / "folder.onnx", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "f.parquet", "f.parquet.partial", "few", "folder.onnx", "m.onnx"
    ]  # fmt: skip


# Copies hold what the manifest lists


@pytest.mark.parametrize("name", ["model.onnx", "README.md"])
def test_links_are_not_copied(saved, tmp_path, name):
    (tmp_path / "secret").write_bytes((saved / name).read_bytes())
    (saved / name).unlink()
    (saved / name).symlink_to(tmp_path / "secret")
    model = load(saved)
    with pytest.raises(ArtifactError, match="is a link"):
        model.save(tmp_path / "copy.hs")
    assert not (tmp_path / "copy.hs").exists()
    assert not list(tmp_path.glob(".headstart*"))


def test_only_listed_files_are_copied(saved, tmp_path):
    (saved / "link").symlink_to("/etc/passwd")
    (saved / "folder").symlink_to("/etc")
    (saved / "notes.txt").write_text("mine")
    os.mkfifo(saved / "pipe")
    copy = load(saved).save(tmp_path / "copy.hs")
    assert {path.name for path in copy.iterdir()} == {*read_manifest(saved).files, "headstart.json"}


@pytest.mark.parametrize(
    "name", ["../outside.txt", "logs/../../outside.txt", "/etc/hostname", "logs/link/a.txt", "C:x", "logs//x"]
)
def test_a_listed_name_that_leads_out_of_the_folder_is_neither_copied_nor_removed(saved, tmp_path, name):
    (tmp_path / "outside.txt").write_text("mine")
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "a.txt").write_text("mine")
    (saved / "logs").mkdir()
    (saved / "logs" / "link").symlink_to(tmp_path / "away")
    manifest = read_manifest(saved)
    hostile = Manifest(**{**manifest.__dict__, "files": {**manifest.files, "logs/x": "", name: ""}})
    (saved / "headstart.json").write_text(hostile.as_text())
    with pytest.raises(ArtifactError):
        load(saved).save(tmp_path / "copy.hs")
    (saved / MARKER).write_text('{"files": [], "folders": []}')
    clear_work(saved)  # as what an interrupted fit left
    assert (tmp_path / "outside.txt").read_text() == (tmp_path / "away" / "a.txt").read_text() == "mine"
    assert not (saved / "model.onnx").exists()


def test_a_file_that_changed_since_is_not_copied(saved, tmp_path):
    model = load(saved)
    (saved / "splits.csv").write_text("id\n")
    with pytest.raises(ArtifactError, match="has changed since"):
        model.save(tmp_path / "copy.hs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.hs"]


# Sent to other processes


def test_a_model_is_sent_by_its_folder(model, pictures, tmp_path):
    item = pictures / "rings" / "1.jpg"
    again = pickle.loads(pickle.dumps(model))
    assert again.predict(item) == model.predict(item)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        (found,) = pool.map(model.predict, [item])
    assert found == model.predict(item)


def test_a_model_whose_folder_is_gone_or_another_is_refused(saved, tmp_path):
    model = load(saved)
    sent = pickle.dumps(model)
    manifest = read_manifest(saved)
    other = Manifest(**{**manifest.__dict__, "created": "2020-01-01T00:00:00+00:00"})
    (saved / "headstart.json").write_text(other.as_text())
    with pytest.raises(ArtifactError, match="another model was saved there"):
        pickle.loads(sent)
    shutil.rmtree(saved)
    with pytest.raises(ArtifactError, match="is no saved model"):
        pickle.loads(sent)


@pytest.mark.parametrize(
    "error",
    [
        SettingError("what", expected="that", mend="this"),
        MissingPackageError("onnx", purpose="this"),
        UnreadableItemError("a.png", "is empty", kind="empty"),
    ],
)
def test_errors_come_back_from_other_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and isinstance(again, HeadstartError)
    assert str(again) == str(error) and vars(again) == vars(error)


def test_moving_checks_once_more(saved, tmp_path, artifact):
    work = shutil.copytree(artifact, tmp_path / "work")
    with pytest.raises(ArtifactError, match="already"):
        move_into_place(work, saved)
    (saved / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"mine\.txt"):
        move_into_place(work, saved, overwrite=True)
    assert (saved / "mine.txt").exists() and work.is_dir()
    check_replaceable(Path(tmp_path / "nothing"))
