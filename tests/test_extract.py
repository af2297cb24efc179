"""Features are computed once for each item's content, and what comes from the cache is what was computed, to the bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from headstart.artifact.store import load
from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.errors import SettingError
from headstart.features import extract
from headstart.features.extract import FLIPPED, PLAIN, extract_batches, feature_store
from headstart.features.prefix import BlockSlice, PrefixSpec
from headstart.features.table import FeatureTable
from headstart.preprocess.image import ImagePreprocess
from headstart.records import Sample

SIDE = 16


class Means:
    """A prefix in a line of numpy: the mean, and the mean of each half, of every channel. It counts what it is given."""

    num_workers = 2
    batch_size = 4
    precision = "float32"
    model_path = None

    def __init__(self, sha256="1" * 64, delay_seconds=0.0):
        blocks = tuple(BlockInfo(name=name, width=width, num_parameters=0) for name, width in (("halves", 6), ("pool", 3)))
        self.spec = PrefixSpec(
            info=BackboneInfo(
                name="means",
                architecture="means",
                modality="image",
                licence="",
                source="",
                sha256=sha256,
                width=3,
                num_parameters=0,
                blocks=blocks,
            ),
            preprocess=ImagePreprocess(image_size=SIDE),
            layout=(BlockSlice(name="halves", start=0, width=6), BlockSlice(name="pool", start=6, width=3)),
            relative_error=0.0,
        )
        self.num_items = 0
        self.delay_seconds = delay_seconds
        self._lock = threading.Lock()

    def __call__(self, batch):
        with self._lock:
            self.num_items += len(batch)
        time.sleep(self.delay_seconds)
        left, right = batch[..., : SIDE // 2].mean((2, 3)), batch[..., SIDE // 2 :].mean((2, 3))
        return np.concatenate([left, right, batch.mean((2, 3))], axis=1).astype(np.float32)


def write_items(folder, count):
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (20 + number % 7, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def samples_in(folder):
    return [Sample(id=path.name, item=path) for path in sorted(folder.iterdir())]


@pytest.fixture
def items(tmp_path):
    return write_items(tmp_path / "items", 21)


@pytest.fixture(autouse=True)
def _own_cache(empty_cache):
    """Nothing is in the cache at the start of any of these tests."""


def by_id(table):
    return dict(zip(table.ids, table.vectors, strict=True))


def expected_of(path, preprocess):
    """Computed by hand, without the library's extraction."""
    batch = preprocess.normalise(preprocess.pixels(path)[None])
    return Means()(batch)[0]


# Once, by content


def test_features_are_computed_once(items):
    prefix, samples = Means(), samples_in(items)
    fresh = extract(prefix, prefix.spec.preprocess, samples)
    assert (fresh.hits, fresh.misses, prefix.num_items) == (0, 21, 21)
    cached = extract(prefix, prefix.spec.preprocess, samples)
    assert (cached.hits, cached.misses, prefix.num_items) == (21, 0, 21)
    assert cached.ids == fresh.ids == tuple(sample.id for sample in samples)
    np.testing.assert_array_equal(cached.vectors, fresh.vectors)
    assert cached.vectors.dtype == fresh.vectors.dtype == np.float32
    assert cached.vectors.shape == (21, 1, 9)
    for sample in samples:
        np.testing.assert_array_equal(by_id(fresh)[sample.id][0], expected_of(sample.item, prefix.spec.preprocess))


def test_order_of_items_changes_nothing_but_the_order(items, monkeypatch, tmp_path):
    prefix, samples = Means(), samples_in(items)
    fresh = extract(prefix, prefix.spec.preprocess, samples)
    shuffled = [samples[i] for i in np.random.default_rng(3).permutation(len(samples))]
    cached = extract(prefix, prefix.spec.preprocess, shuffled)
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "another"))
    again = extract(prefix, prefix.spec.preprocess, shuffled)
    assert cached.ids == again.ids == tuple(sample.id for sample in shuffled)
    assert (cached.misses, again.hits) == (0, 0)
    for id_, vector in by_id(fresh).items():
        np.testing.assert_array_equal(by_id(cached)[id_], vector)
        np.testing.assert_array_equal(by_id(again)[id_], vector)


def test_cached_equals_fresh_to_the_bit_with_a_real_network(prefix, pictures):
    samples = [Sample(id=str(path), item=path) for path in sorted(pictures.rglob("1*.*"))]
    fresh = extract(prefix, prefix.spec.preprocess, samples[:20])
    cached = extract(prefix, prefix.spec.preprocess, samples[:20][::-1])
    assert (fresh.misses, cached.hits) == (20, 20)
    np.testing.assert_array_equal(cached.vectors[::-1], fresh.vectors)
    singly = np.stack([prefix(prefix.spec.preprocess(sample.item)[None])[0] for sample in samples[:3]])
    np.testing.assert_allclose(fresh.vectors[:3, 0], singly, atol=1e-5 * np.abs(singly).max())


def test_only_new_contents_are_computed(items):
    prefix = Means()
    before = extract(prefix, prefix.spec.preprocess, samples_in(items))
    (items / "000.png").rename(items / "renamed.png")  # a hit
    shutil.copy(items / "001.png", items / "copy.png")  # a hit
    changed = bytearray((items / "002.png").read_bytes())
    changed += b"\0"  # behind the end of the picture: the same pixels, and still other content
    (items / "002.png").write_bytes(changed)
    Image.new("RGB", (30, 30), "red").save(items / "new.png")
    after = extract(prefix, prefix.spec.preprocess, samples_in(items))
    assert (after.hits, after.misses, prefix.num_items) == (21, 2, 23)
    np.testing.assert_array_equal(by_id(after)["renamed.png"], by_id(before)["000.png"])
    np.testing.assert_array_equal(by_id(after)["copy.png"], by_id(before)["001.png"])
    np.testing.assert_array_equal(by_id(after)["002.png"], by_id(before)["002.png"])
    assert after.hashes["renamed.png"] == before.hashes["000.png"]
    assert after.hashes["002.png"] != before.hashes["002.png"]


@pytest.mark.parametrize(
    "other",
    [
        {"geometry": "pad"},
        {"geometry": "squash"},
        {"crop_fraction": 0.9},
        {"interpolation": "bilinear"},
        {"mean": (0.1, 0.2, 0.3)},
        {"background": (0, 0, 0)},
        {"draft": False},
    ],
)
def test_preprocessing_is_part_of_the_key(items, other):
    prefix, samples = Means(), samples_in(items)[:5]
    extract(prefix, ImagePreprocess(image_size=SIDE), samples)
    preprocess = ImagePreprocess(**({"image_size": SIDE} | other))
    table = extract(prefix, preprocess, samples)
    assert (table.hits, table.misses) == (0, 5)
    np.testing.assert_array_equal(table.vectors[2, 0], expected_of(samples[2].item, preprocess))
    assert extract(prefix, preprocess, samples).hits == 5


def test_other_weights_are_other_features(items):
    samples = samples_in(items)[:5]
    extract(Means(), ImagePreprocess(image_size=SIDE), samples)
    assert extract(Means(sha256="2" * 64), ImagePreprocess(image_size=SIDE), samples).misses == 5


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "array", "image"])
def test_every_kind_of_item_gives_the_same_features(items, kind):
    prefix = Means()
    path = items / "005.png"
    with Image.open(path) as opened:
        picture = opened.copy()
    item = {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "array": np.asarray(picture),
        "image": picture,
    }[kind]
    for hits in (0, 1):
        table = extract(prefix, prefix.spec.preprocess, [Sample(id="0", item=item)])
        assert table.hits == hits
        np.testing.assert_array_equal(table.vectors[0, 0], expected_of(path, prefix.spec.preprocess))


def test_no_items_give_an_empty_table():
    prefix = Means()
    table = extract(prefix, prefix.spec.preprocess, [])
    assert table.vectors.shape == (0, 1, 9)
    assert (table.ids, table.failures, table.hits, table.misses) == ((), {}, 0, 0)
    assert table.features().shape == (0, 3)


# The table


def test_features_of_chosen_items_in_the_order_asked_for(items):
    prefix = Means()
    table = extract(prefix, prefix.spec.preprocess, samples_in(items))
    ids = ["005.png", "000.png", "005.png"]
    assert table.features("multi", ids).shape == (3, 9)
    for row, id_ in zip(table.features("multi", ids), ids, strict=True):
        np.testing.assert_array_equal(row, by_id(table)[id_][0])
    np.testing.assert_array_equal(table.features("halves"), table.vectors[:, 0, :6])
    np.testing.assert_array_equal(table.features(), table.features("pool"))
    assert table.rows["005.png"] == 5
    with pytest.raises(SettingError, match="no block 'stem'"):
        table.features("stem")
    with pytest.raises(KeyError):
        table.features("pool", ["nowhere.png"])


def test_features_of_several_views_are_their_mean():
    vectors = np.random.default_rng(0).standard_normal((4, 2, 9)).astype(np.float32)
    table = FeatureTable(
        ids=tuple("abcd"),
        vectors=vectors,
        views=("", "flip"),
        spec=Means().spec,
        preprocess=ImagePreprocess(),
        hashes={},
        failures={},
        hits=0,
        misses=4,
        seconds=0.0,
    )
    wanted = (vectors[[2, 0], 0, 6:] + vectors[[2, 0], 1, 6:]) / 2
    np.testing.assert_allclose(table.features("pool", ["c", "a"]), wanted, rtol=1e-6)
    assert table.features().dtype == np.float32


# Views


def test_flipped_view_is_the_mirrored_picture(tmp_path, prefix):
    random = np.random.default_rng(5)
    picture = Image.fromarray(random.integers(0, 256, (224, 224, 3), np.uint8))
    preprocess = ImagePreprocess(image_size=224, geometry="squash", mean=(0.5,) * 3, std=(0.5,) * 3)
    both = extract(prefix, preprocess, [Sample(id="0", item=picture)], views=(PLAIN, FLIPPED))
    mirrored = extract(prefix, preprocess, [Sample(id="0", item=ImageOps.mirror(picture))])
    assert both.views == ("", "flip")
    np.testing.assert_array_equal(both.vectors[0, 1], mirrored.vectors[0, 0])
    assert np.abs(both.vectors[0, 1] - both.vectors[0, 0]).max() > 1e-3
    mean = (both.vectors[0, 0] + both.vectors[0, 1]) / 2
    np.testing.assert_allclose(both.features("multi")[0], mean, rtol=1e-6)


def test_only_the_missing_view_is_computed(items):
    prefix, samples = Means(), samples_in(items)
    plain = extract(prefix, prefix.spec.preprocess, samples[:10])
    both = extract(prefix, prefix.spec.preprocess, samples, views=(PLAIN, FLIPPED))
    assert prefix.num_items == 10 + 10 + 2 * 11
    assert (both.hits, both.misses) == (0, 21)
    np.testing.assert_array_equal(both.vectors[:10, 0], plain.vectors[:, 0])
    # Mirrored, the left half's means are the right half's.
    np.testing.assert_allclose(both.vectors[:, 1, :3], both.vectors[:, 0, 3:6], rtol=1e-4, atol=1e-5)
    again = extract(prefix, prefix.spec.preprocess, samples, views=(PLAIN, FLIPPED))
    np.testing.assert_array_equal(again.vectors, both.vectors)
    assert again.hits == 21
    flipped = extract(prefix, prefix.spec.preprocess, samples, views=(FLIPPED,))
    np.testing.assert_array_equal(flipped.vectors[:, 0], both.vectors[:, 1])
    assert prefix.num_items == 42


# Items that give nothing


def test_failures_are_reported_and_remembered_and_nothing_is_put_in_their_place(items, monkeypatch):
    whole = (items / "003.png").read_bytes()
    (items / "003.png").write_bytes(whole[: len(whole) // 2])
    (items / "004.png").write_bytes(b"")
    (items / "005.png").write_text("no picture")
    prefix = Means()
    decoded = []
    pixels = ImagePreprocess.pixels
    monkeypatch.setattr(
        ImagePreprocess, "pixels", lambda self, item, *, name="": decoded.append(name) or pixels(self, item, name=name)
    )
    first = extract(prefix, prefix.spec.preprocess, samples_in(items))
    assert set(first.failures) == {"003.png", "004.png", "005.png"}
    assert len(first.ids) == len(first.vectors) == first.misses == 18
    assert first.failures["003.png"].startswith("truncated: ")
    assert first.failures["004.png"].startswith("empty: ")
    assert first.failures["005.png"].startswith("unreadable: ")
    assert not set(first.failures) & set(first.ids)
    assert set(first.hashes) == set(first.ids) | set(first.failures)
    assert len(decoded) == 21
    second = extract(prefix, prefix.spec.preprocess, samples_in(items))
    assert second.failures == first.failures
    assert (second.hits, second.misses, len(decoded)) == (18, 0, 21)
    (items / "003.png").write_bytes(whole)  # mended
    third = extract(prefix, prefix.spec.preprocess, samples_in(items))
    assert set(third.failures) == {"004.png", "005.png"}
    assert third.misses == 1


def test_items_that_are_not_there_are_reported_and_not_remembered(items):
    prefix, samples = Means(), samples_in(items)
    (items / "007.png").rename(items.parent / "away.png")
    table = extract(prefix, prefix.spec.preprocess, [*samples, Sample(id="number", item=7)])
    assert table.failures == {
        "007.png": "unreadable: there is no such file",
        "number": "unsupported: is an object of type int, which no image can be read from",
    }
    assert not set(table.failures) & set(table.hashes)
    (items.parent / "away.png").rename(items / "007.png")
    table = extract(prefix, prefix.spec.preprocess, samples)
    assert (table.failures, table.misses) == ({}, 1)


def test_items_that_vanish_during_the_run_are_reported(items):
    samples = samples_in(items)

    class Removing(Means):
        def __call__(self, batch):
            (items / "020.png").unlink(missing_ok=True)
            return super().__call__(batch)

    prefix = Removing()
    prefix.num_workers = 1
    table = extract(prefix, prefix.spec.preprocess, samples)
    assert table.failures == {"020.png": "unreadable: there is no such file"}
    assert table.misses == 20


def test_all_items_of_a_batch_failing_is_no_trouble(items):
    prefix = Means()
    for path in items.iterdir():
        path.write_bytes(b"no picture")
    table = extract(prefix, prefix.spec.preprocess, samples_in(items))
    assert len(table.failures) == 21
    assert table.vectors.shape == (0, 1, 9)
    assert prefix.num_items == 0


# On the way


def test_progress_counts_every_item_up_to_all(items):
    (items / "003.png").write_bytes(b"")
    told = []
    prefix = Means()
    extract(prefix, prefix.spec.preprocess, samples_in(items), progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 21) for done in (4, 8, 12, 16, 20, 21)]


def test_no_more_samples_are_taken_than_there_is_room_for(items):
    """In memory are at most two batches a worker, and the one that is handed out."""
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Sample(id=str(taken), item=items / "000.png")

    prefix = Means()
    with feature_store(prefix, prefix.spec.preprocess) as store:
        batches = extract_batches(prefix, prefix.spec.preprocess, endless(), store=store)
        for number in range(1, 6):
            batch = next(batches)
            assert len(batch.ids) == prefix.batch_size
            assert taken <= (number + 2 * prefix.num_workers) * prefix.batch_size
        batches.close()


def test_what_fails_in_the_network_ends_the_run_and_keeps_what_was_done(items):
    class Failing(Means):
        num_workers = 1

        def __call__(self, batch):
            if self.num_items >= 12:
                raise MemoryError("no room for another batch")
            return super().__call__(batch)

    prefix = Failing()
    with pytest.raises(MemoryError, match="no room"):
        extract(prefix, prefix.spec.preprocess, samples_in(items))
    assert extract(Means(), prefix.spec.preprocess, samples_in(items)).hits == 12


# The cache


def test_a_cache_that_cannot_be_written_works_and_says_so(items, tmp_path, monkeypatch):
    prefix, samples = Means(), samples_in(items)
    wanted = extract(prefix, prefix.spec.preprocess, samples)
    assert wanted.notes == ()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        table = extract(prefix, prefix.spec.preprocess, samples)
        assert (table.hits, table.misses) == (0, 21)
        np.testing.assert_array_equal(table.vectors, wanted.vectors)
        assert "nothing is cached" in table.notes[0]


WORKER = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_extract import Means, samples_in
from headstart.features import extract
prefix = Means(delay_seconds=0.02)
print(json.dumps([0, 0]), flush=True)
extract(prefix, prefix.spec.preprocess, samples_in(Path(sys.argv[2])),
        progress=lambda done, total: print(json.dumps([done, total]), flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_loses_at_most_the_batches_under_way(tmp_path, number):
    folder = write_items(tmp_path / "many", 400)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for line in worker.stdout:
        if json.loads(line)[0] >= 80:
            break
    worker.send_signal(number)
    rest, told = worker.communicate(timeout=60)
    assert worker.returncode == -number
    assert number == signal.SIGKILL or b"KeyboardInterrupt" in told
    lines = [line, *rest.splitlines(keepends=True)]
    done = json.loads([line for line in lines if line.endswith(b"\n")][-1])[0]
    assert 80 <= done < 400
    prefix, samples = Means(), samples_in(folder)
    table = extract(prefix, prefix.spec.preprocess, samples)
    # The batch after the last one told of may have been stored as well.
    assert done <= table.hits <= done + prefix.batch_size
    assert table.hits + table.misses == 400
    assert table.notes == ()
    for index in (0, done - 1, 399):
        np.testing.assert_array_equal(table.vectors[index, 0], expected_of(samples[index].item, prefix.spec.preprocess))
    assert extract(prefix, prefix.spec.preprocess, samples).hits == 400


# Processes of their own


def test_a_cached_run_needs_no_torch(artifact, pictures, run_python, session_cache):
    """The whole of `fit` again, from the cache that the first one filled."""
    code = """
import sys, headstart
model = headstart.fit(sys.argv[1], strategy="extract")
print(model.report.content["summary"]["cache"]["misses"])
print(sorted(set(sys.modules) & {"torch", "timm", "torchvision", "onnxscript", "transformers"}))
"""
    said = run_python(code, pictures, HEADSTART_CACHE=str(session_cache))
    assert said.returncode == 0, said.stderr
    assert said.stdout.split("\n")[:2] == ["0", "[]"]


@pytest.fixture
def shared_cache(prefix, pictures, session_cache):
    """A warm cache that everybody may read and only its owner may write to; and pictures in memory."""
    folder = Path(tempfile.mkdtemp())
    for name in ("compiled", "features"):
        shutil.copytree(session_cache / name, folder / name)
    folder.chmod(0o555)
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_read_only_cache_is_used_and_said_to_be(artifact, shared_cache, pictures, run_python):
    """Compiled network and features are read by a user who may not write; new items are computed and not kept."""
    code = """
import os, sys
from pathlib import Path
from headstart.backbones import locate
from headstart.features import compile_prefix, extract
from headstart.records import Sample
items = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
source = locate("efficientnet-lite0")
compile_prefix(source).wait().spec.preprocess(items[0])  # imports what may lie where only the owner may look
if os.geteuid() == 0:
    os.seteuid(65534)
compilation = compile_prefix(source)
prefix = compilation.wait()
preprocess = prefix.spec.preprocess.with_geometry(sys.argv[2])
samples = [Sample(id=str(number), item=item) for number, item in enumerate(items)]
table = extract(prefix, preprocess, samples)
other = extract(prefix, preprocess, [Sample(id="new", item=items[0] + b"new")])
print(compilation.cached, table.hits, table.misses, other.misses, "torch" in sys.modules)
print(table.notes, other.failures)
"""
    geometry = load(artifact).preprocess.geometry
    said = run_python(code, pictures / "rings", geometry, HEADSTART_CACHE=str(shared_cache))
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[0] == "True 30 0 1 False"
    assert "the feature store is only read, not written to" in said.stdout


# Every process that Python starts with this on its path notes each attempt to reach the network, and fails it.
GUARD = """
import os, sys
def _refuse(event, arguments):
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
                 "socket.gethostbyaddr", "socket.getnameinfo"}:
        with open(os.environ["GUARD_LOG"], "a") as log:
            log.write(f"{event} {arguments[1:]} {sys.argv[:1]}\\n")
        raise OSError("no network in this test")
sys.addaudithook(_refuse)
with open(os.environ["GUARD_LOG"], "a") as log:
    log.write("guarded\\n")
"""


def test_offline_opens_no_socket(draw_folder, tmp_path, run_python):
    """`fit --offline` of a bundled backbone, and of one that another process compiles; with a cold cache and a warm one."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    log = tmp_path / "log"
    environment = {
        "PYTHONPATH": str(tmp_path / "guard"),
        "GUARD_LOG": str(log),
        "HEADSTART_CACHE": str(tmp_path / "cold"),
        "HF_HOME": str(tmp_path / "hub"),
    }
    probe = run_python("import socket; socket.create_connection(('127.0.0.1', 9))", **environment)
    assert "no network in this test" in probe.stderr
    assert log.read_text().startswith("guarded\nsocket.getaddrinfo ")
    folder = draw_folder(tmp_path / "few", per_class=6)
    code = "import sys; from headstart.cli import main; sys.exit(main())"
    own = "random:test_resnet"
    for number, (backbone, processes) in enumerate([("efficientnet-lite0", 1), (own, 2), (own, 1)]):
        log.unlink()
        words = ["fit", folder, "--out", tmp_path / f"{number}.hs", "--backbone", backbone, "--offline", "--json"]
        said = run_python(code, *words, **environment)
        assert said.returncode == 0, said.stderr
        assert json.loads(said.stdout)["backbone"] == backbone
        assert log.read_text().splitlines() == ["guarded"] * processes
