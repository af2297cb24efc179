"""What tests share: a cache of their own, a small folder of pictures that can be told apart, and a model fitted on them."""

import gc
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

CLASSES = ("blobs", "checks", "rings", "stripes")
NUM_PER_CLASS = 30
OWN_CACHE = pytest.StashKey[str]()


def pytest_configure(config):
    # A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Set before any test module is imported, and inherited by every process that a test starts; the user's own cache is
    # neither read nor written. Worker processes of a parallel run have one each, in that of the process that started them:
    # some tests count what is stored.
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        os.environ["HEADSTART_CACHE"] = str(Path(os.environ["HEADSTART_CACHE"], worker["workerid"]))
        return
    config.stash[OWN_CACHE] = tempfile.mkdtemp(prefix="headstart-tests-")
    os.environ["HEADSTART_CACHE"] = config.stash[OWN_CACHE]
    os.environ["HEADSTART_DEVICE"] = "cpu"
    for name in ("HEADSTART_OFFLINE", "HEADSTART_THREADS", "HEADSTART_CACHE_LIMIT", "HF_HUB_OFFLINE"):
        os.environ.pop(name, None)


def pytest_collection_finish():
    # Thousands of tests and the libraries they import stay until the end: the collector need not go through them again.
    gc.freeze()


def pytest_unconfigure(config):
    gc.unfreeze()
    if OWN_CACHE in config.stash:
        shutil.rmtree(config.stash[OWN_CACHE], ignore_errors=True)


def picture_of(label, number):
    """A picture of a class: the pattern tells the class; colours, scale, angle, place and size tell nothing."""
    random = np.random.default_rng([CLASSES.index(label), number])
    wide, high = (int(side) for side in random.integers(60, 190, 2))
    y, x = np.mgrid[:high, :wide].astype(np.float64)
    angle, period = random.uniform(0, np.pi), random.uniform(9, 26)
    shift = random.uniform(0, 50, 2)
    u = (x * np.cos(angle) + y * np.sin(angle) + shift[0]) / period
    v = (y * np.cos(angle) - x * np.sin(angle) + shift[1]) / period
    match label:
        case "stripes":
            level = np.sin(2 * np.pi * u)
        case "checks":
            level = np.sign(np.sin(np.pi * u) * np.sin(np.pi * v))
        case "rings":
            centre = random.uniform(0.2, 0.8, 2) * (wide, high)
            level = np.sin(2 * np.pi * np.hypot(x - centre[0], y - centre[1]) / period)
        case "blobs":
            coarse = Image.fromarray(random.standard_normal((6, 6)).astype(np.float32))
            level = np.tanh(2 * np.asarray(coarse.resize((wide, high), Image.Resampling.BICUBIC)))
    dark, light = random.integers(0, 110, 3), random.integers(130, 256, 3)
    mix = (level[..., None] + 1) / 2
    pixels = dark + (light - dark) * mix + random.normal(0, 8, (high, wide, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_pictures(folder, *, per_class=NUM_PER_CLASS, first=0, classes=CLASSES):
    """Write a folder per class; every third picture is a PNG, the others are JPEGs of several qualities."""
    for label in classes:
        (folder / label).mkdir(parents=True)
        for number in range(first, first + per_class):
            picture = picture_of(label, number)
            if number % 3:
                picture.save(folder / label / f"{number}.jpg", quality=80 + number % 15)
            else:
                picture.save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def draw():
    """`draw(label, number)` gives a picture; labels are those of the folder `pictures`, numbers from 30 are new to it."""
    return picture_of


@pytest.fixture(scope="session")
def draw_folder():
    """`draw_folder(folder, per_class=…, first=…)` writes pictures into a folder per class, and gives the folder."""
    return write_pictures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 4 classes of 30 pictures each, not to be changed: copy it, or draw another."""
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="session")
def artifact(pictures, tmp_path_factory):
    """The folder of a model fitted on `pictures`, not to be changed."""
    from headstart import fit

    folder = tmp_path_factory.mktemp("models") / "pictures.hs"
    fit(pictures, out=folder, strategy="extract")
    return folder


@pytest.fixture
def model(artifact):
    """The model fitted on `pictures`, opened afresh."""
    from headstart import load

    return load(artifact)


@pytest.fixture(scope="session")
def prefix():
    """The compiled default backbone; compiled at most once a session."""
    from headstart.backbones import locate
    from headstart.features import compile_prefix

    return compile_prefix(locate("efficientnet-lite0")).wait()


@pytest.fixture(scope="module")
def compiling_here():
    """What the tests of a module compile is compiled in their own process, which has torch already."""
    from compiled_here import InProcess
    from headstart.features import compile as compiling

    stand_in = SimpleNamespace(Popen=InProcess, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "subprocess", stand_in)
        yield


@pytest.fixture(scope="session")
def run_python():
    """`run_python(code, *arguments, **environment)` runs code in a fresh process and gives what became of it."""

    def run(code, *arguments, timeout=120, **environment):
        command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env=os.environ | environment
        )

    return run


@pytest.fixture(scope="session")
def as_bytes():
    """`as_bytes(picture, kind="PNG")` gives the file that a picture makes."""

    def encode(picture, kind="PNG", **settings):
        stream = io.BytesIO()
        picture.save(stream, kind, **settings)
        return stream.getvalue()

    return encode


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test alone, with nothing in it."""
    folder = tmp_path / "empty-cache"
    monkeypatch.setenv("HEADSTART_CACHE", str(folder))
    return folder


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt of this process to reach the network fails, and is in the list."""
    tried = []

    def refuse(*arguments, **_):
        tried.append(arguments)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


@pytest.fixture(scope="session")
def session_cache():
    """The cache that `prefix`, `artifact` and `pictures` are in, for tests that work in another and start processes."""
    return Path(os.environ["HEADSTART_CACHE"])
