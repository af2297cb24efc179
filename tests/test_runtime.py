"""The machine as seen from inside, and files that are whole or absent."""

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from headstart import runtime
from headstart.errors import ArtifactError, CacheError, SettingError


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("HEADSTART_CACHE", "HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "HEADSTART_THREADS"):
        monkeypatch.delenv(name, raising=False)


def test_cache_root_follows_the_environment_and_makes_nothing(monkeypatch, tmp_path):
    assert runtime.cache_root().is_absolute()
    assert runtime.cache_root().name == "headstart"
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "elsewhere"))
    assert runtime.cache_root() == tmp_path / "elsewhere"
    assert not (tmp_path / "elsewhere").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_CACHE", "near")
    assert runtime.cache_root() == tmp_path / "near"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HEADSTART_CACHE", "~/mine")
    assert runtime.cache_root() == tmp_path / "mine"


@pytest.mark.parametrize(
    ("own", "hub", "expected"),
    [
        ("", "", False),
        ("1", "", True),
        ("TRUE", "", True),
        ("0", "", False),
        ("0", "1", True),
        ("", "on", True),
        ("no", "0", False),
    ],
)
def test_offline(monkeypatch, own, hub, expected):
    monkeypatch.setenv("HEADSTART_OFFLINE", own)
    monkeypatch.setenv("HF_HUB_OFFLINE", hub)
    assert runtime.offline() is expected


def test_offline_refuses_other_words(monkeypatch):
    monkeypatch.setenv("HEADSTART_OFFLINE", "maybe")
    with pytest.raises(SettingError, match="'maybe'"):
        runtime.offline()


def test_num_cores_is_what_the_scheduler_grants():
    code = """
import os
from headstart.runtime import num_cores
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert num_cores() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert 1 <= runtime.num_cores() <= len(os.sched_getaffinity(0))


def test_num_cores_can_be_overridden(monkeypatch):
    monkeypatch.setenv("HEADSTART_THREADS", " 7 ")
    assert runtime.num_cores() == 7


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", "1025", "²", "9" * 5000])
def test_num_cores_refuses_what_is_no_count(monkeypatch, wrong):
    monkeypatch.setenv("HEADSTART_THREADS", wrong)
    with pytest.raises(SettingError, match="HEADSTART_THREADS"):
        runtime.num_cores()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "rubbish here\n"}, None),
        ({}, None),
    ],
)
def test_the_containers_quota_is_read(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert runtime._cpu_quota(tmp_path) == expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these thresholds")
def test_raised_thresholds_keep_large_blocks_off_mmap():
    # glibc's own statistics: a block of 64 MiB is mapped by itself before, and not after.
    code = """
import ctypes
from headstart.runtime import raise_malloc_thresholds
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in names]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
base = libc.mallinfo2().hblks
libc.malloc(64 << 20)
assert libc.mallinfo2().hblks == base + 1
assert raise_malloc_thresholds()
libc.malloc(64 << 20)
assert libc.mallinfo2().hblks == base + 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_hardware_names_the_machine():
    facts = runtime.hardware()
    assert set(facts) == {"cpu", "cores", "memory_bytes", "os", "python"}
    assert facts["cores"] == runtime.num_cores()
    assert facts["memory_bytes"] > 1 << 28
    assert facts["cpu"].strip()
    assert facts["python"].endswith(sys.version.split()[0])


def test_import_is_light():
    code = "import sys, headstart.runtime; assert not {'numpy', 'torch', 'PIL', 'lmdb'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_atomic_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "a.json"
    runtime.atomic_write_text(path, "one\r\nä\n")
    assert path.read_bytes() == "one\r\nä\n".encode()
    runtime.atomic_write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_atomic_write_takes_names_as_long_as_the_system_does(tmp_path):
    path = tmp_path / ("n" * 255)
    runtime.atomic_write_text(path, "x")
    assert path.read_text() == "x"


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "allow writing"), (errno.EIO, "name another file")]
)
def test_a_failed_write_leaves_the_old_file_and_no_scraps(tmp_path, monkeypatch, number, word):
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ArtifactError, match=word) as caught:
        runtime.atomic_write_text(path, "new", error=ArtifactError)
    assert os.strerror(number) in caught.value.what
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_no_scraps(tmp_path, monkeypatch):
    def interrupt(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runtime.atomic_write_text(tmp_path / "a", "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [Path("missing") / "a", Path("file") / "a"])
def test_a_missing_folder_is_told(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="make the folder"):
        runtime.atomic_write_text(tmp_path / path, "x")


def test_writing_over_a_folder_is_told(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CacheError, match="cannot write"):
        runtime.atomic_write_text(tmp_path / "folder", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
