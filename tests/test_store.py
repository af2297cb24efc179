"""The feature store: what was put comes back bit for bit, whatever happens to the process, the disk or the file."""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headstart.errors import CacheError, SettingError
from headstart.features import environment as environment_module
from headstart.features import upkeep
from headstart.features.store import FeatureStore, cache_limit, clear, info, prune, store_key


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("HEADSTART_CACHE_LIMIT", raising=False)


def open_store(root, fingerprint="abc123", dtype="float32", shape=(16,)):
    return FeatureStore.open(root, fingerprint, dtype=dtype, shape=shape, describe={"backbone": "toy", "block": "pool"})


def key_of(number, view=""):
    return store_key(hashlib.sha256(str(number).encode()).digest(), view)


def values_of(numbers, width=16):
    """Features that follow from the number, so that any process can check them."""
    return np.stack([np.random.default_rng(number).standard_normal(width).astype(np.float32) for number in numbers])


def data_file(root, fingerprint="abc123"):
    return root / "features" / fingerprint / "data.mdb"


# Put and get


def test_what_was_put_comes_back(tmp_path):
    keys, values = [key_of(number) for number in range(50)], values_of(range(50))
    with open_store(tmp_path) as store:
        assert store.writable
        assert store.why == ""
        np.testing.assert_array_equal(store.put_many(keys[:30], values[:30]), values[:30])
        found_values, found = store.get_many(keys)
        assert found.tolist() == [True] * 30 + [False] * 20
        np.testing.assert_array_equal(found_values[:30], values[:30])
        assert not found_values[30:].any()
        assert (store.hits, store.misses) == (30, 20)
    with open_store(tmp_path) as store:
        found_values, found = store.get_many(keys[::-1])
        np.testing.assert_array_equal(found_values[found], values[:30][::-1])
        assert (store.hits, store.misses) == (30, 20)


def test_views_fingerprints_and_contents_are_kept_apart(tmp_path):
    with open_store(tmp_path) as store, open_store(tmp_path, "other") as other:
        store.put_many([key_of(1), key_of(1, "flip")], values_of([1, 2]))
        other.put_many([key_of(1)], values_of([3]))
        np.testing.assert_array_equal(store.get_many([key_of(1, "flip"), key_of(1)])[0], values_of([2, 1]))
        np.testing.assert_array_equal(other.get_many([key_of(1)])[0], values_of([3]))
        assert not other.get_many([key_of(1, "flip")])[1].any()


def test_a_later_value_replaces_an_earlier_one(tmp_path):
    with open_store(tmp_path) as store:
        store.put_many([key_of(1), key_of(1)], values_of([1, 2]))
        np.testing.assert_array_equal(store.get_many([key_of(1)])[0], values_of([2]))


def test_no_keys_are_no_trouble(tmp_path):
    with open_store(tmp_path) as store:
        values, found = store.get_many([])
        assert values.shape == (0, 16)
        assert found.shape == (0,)
        assert store.put_many([], np.zeros((0, 16))).shape == (0, 16)
        assert store.get_failures([]) == {}


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.floats(-60000, 60000)),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
)
def test_fresh_and_cached_are_equal_bit_for_bit(values, dtype):
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder), dtype=dtype, shape=values.shape[1:]) as store:
        keys = [key_of(number) for number in range(len(values))]
        fresh = store.put_many(keys, values)
        cached, found = store.get_many(keys)
        assert found.all()
        assert fresh.dtype == cached.dtype == np.dtype(dtype)
        assert fresh.tobytes() == cached.tobytes() == store.rounded(values).tobytes()
        np.testing.assert_array_equal(cached, values.astype(dtype))


def test_special_values_and_odd_layouts_come_back(tmp_path):
    values = np.array([[np.nan, np.inf, -np.inf, -0.0] * 4, [1e-40] * 16], np.float32)
    with open_store(tmp_path) as store:
        store.put_many([key_of(1), key_of(2)], values)
        assert store.get_many([key_of(1), key_of(2)])[0].tobytes() == values.tobytes()
        turned = np.asfortranarray(values_of([3, 4, 5]))
        store.put_many([key_of(3), key_of(4), key_of(5)], turned)
        np.testing.assert_array_equal(store.get_many([key_of(5), key_of(4)])[0], values_of([5, 4]))


def test_values_beyond_the_stored_type_are_refused_not_made_infinite(tmp_path):
    with open_store(tmp_path, dtype="float16") as store:
        with pytest.raises(CacheError, match="70000"):
            store.put_many([key_of(1)], np.full((1, 16), 70000.0))
        assert not store.get_many([key_of(1)])[1].any()


def test_wrong_calls_are_told(tmp_path):
    with open_store(tmp_path) as store:
        with pytest.raises(CacheError, match="2 keys"):
            store.put_many([key_of(1), key_of(2)], values_of([1]))
        with pytest.raises(CacheError, match="shape"):
            store.put_many([key_of(1)], np.zeros((1, 17)))
        with pytest.raises(CacheError, match="empty or too long"):
            store.get_many([b""])
        with pytest.raises(CacheError, match="empty or too long"):
            store.put_failure(b"x" * 600, "truncated", "")
    with pytest.raises(SettingError):
        store_key(b"short")
    with pytest.raises(SettingError):
        store_key(bytes(32), "v" * 401)


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "../up"}, {"fingerprint": ""}, {"fingerprint": ".hidden"}, {"fingerprint": "a/b"},
        {"fingerprint": "a" * 129}, {"dtype": "int64"}, {"dtype": "rubbish"}, {"shape": (0,)}, {"shape": ("a",)},
        {"describe": {"a": object()}},
    ],
)  # fmt: skip
def test_wrong_stores_are_refused(tmp_path, change):
    arguments = {"fingerprint": "abc", "dtype": "float32", "shape": (3,), "describe": {}} | change
    with pytest.raises(SettingError):
        FeatureStore.open(tmp_path, arguments.pop("fingerprint"), **arguments)
    assert list(tmp_path.iterdir()) == []


def test_one_fingerprint_has_one_shape_and_type(tmp_path):
    open_store(tmp_path).close()
    for other in ({"shape": (17,)}, {"dtype": "float16"}):
        with pytest.raises(SettingError, match="fingerprint"):
            open_store(tmp_path, **other)


def test_failures_are_remembered(tmp_path):
    with open_store(tmp_path) as store:
        assert store.get_failures([key_of(1)]) == {}
        store.put_failure(key_of(1), "truncated", "is cut off: “ä”")
        store.put_many([key_of(2)], values_of([2]))
    with open_store(tmp_path) as store:
        failures = store.get_failures([key_of(1), key_of(2), key_of(3)])
        assert set(failures) == {key_of(1)}
        assert (failures[key_of(1)].kind, failures[key_of(1)].reason) == ("truncated", "is cut off: “ä”")
        assert not store.get_many([key_of(1)])[1].any()
    assert info(tmp_path)[0].items == 1


# Opening twice, threads, forks, processes


def test_the_same_store_may_be_open_twice_in_a_process(tmp_path, monkeypatch):
    first, second = open_store(tmp_path), open_store(tmp_path / "x" / "..")
    first.put_many([key_of(1)], values_of([1]))
    assert second.get_many([key_of(1)])[1].all()
    first.close()
    first.close()
    second.put_many([key_of(2)], values_of([2]))
    assert second.get_many([key_of(1), key_of(2)])[1].all()
    assert not first.get_many([key_of(1)])[1].any()
    assert not first.writable
    second.close()
    with open_store(tmp_path) as third:
        assert third.get_many([key_of(1), key_of(2)])[1].all()


def test_threads_share_a_store_while_it_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(environment_module, "_FIRST_MAP_BYTES", 1 << 16)

    def work(part):
        numbers = range(part * 100, part * 100 + 100)
        for number in numbers:
            store.put_many([key_of(number)], values_of([number], 1000))
            values, found = store.get_many([key_of(number)])
            assert found.all()
            np.testing.assert_array_equal(values, values_of([number], 1000))

    with open_store(tmp_path, shape=(1000,)) as store, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
        assert store.get_many([key_of(number) for number in range(400)])[1].all()
        assert store.why == ""


def test_the_map_grows_and_the_file_only_with_what_is_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(environment_module, "_FIRST_MAP_BYTES", 1 << 16)
    with open_store(tmp_path, shape=(2500,)) as store:
        for start in range(0, 200, 50):
            numbers = range(start, start + 50)
            store.put_many([key_of(number) for number in numbers], values_of(numbers, 2500))
        assert store.why == ""
        values, found = store.get_many([key_of(number) for number in range(200)])
        assert found.all()
        np.testing.assert_array_equal(values, values_of(range(200), 2500))
    assert 2_000_000 < data_file(tmp_path).stat().st_size < 4_000_000
    monkeypatch.undo()
    open_store(tmp_path / "large map").close()
    assert data_file(tmp_path / "large map").stat().st_size < 100_000


def in_child(action):
    """Run `action` in a forked child; gives what it returns."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(action()))
    child.start()
    sender.close()
    assert receiver.poll(30)
    result = receiver.recv()
    child.join(30)
    assert child.exitcode == 0
    return result


def test_a_forked_child_leaves_its_parents_store_alone(tmp_path):
    with open_store(tmp_path) as store:
        store.put_many([key_of(1)], values_of([1]))

        def use():
            found = bool(store.get_many([key_of(1)])[1].any())
            store.put_many([key_of(2)], values_of([2]))
            why = store.why
            store.close()
            with open_store(tmp_path) as another:
                return found, why, another.writable, another.why

        found, why, writable, another_why = in_child(use)
        assert not found
        assert "forked" in why
        assert not writable
        assert "nothing is cached" in another_why
        assert store.get_many([key_of(1)])[1].all()  # the parent's readers are as they were
        store.put_many([key_of(3)], values_of([3]))
        assert store.get_many([key_of(1), key_of(2), key_of(3)])[1].tolist() == [True, False, True]
    with open_store(tmp_path) as store:
        assert store.get_many([key_of(1), key_of(3)])[1].all()


WRITER = """
import hashlib, sys
from pathlib import Path
import numpy as np
from headstart.features import environment
from headstart.features.store import FeatureStore, store_key
environment._FIRST_MAP_BYTES = 1 << 20
root, first, last, batch = Path(sys.argv[1]), *map(int, sys.argv[2:5])
store = FeatureStore.open(root, "abc123", dtype="float32", shape=(1000,), describe={})
assert store.writable, store.why
for start in range(first, last, batch):
    numbers = range(start, min(start + batch, last))
    keys = [store_key(hashlib.sha256(str(number).encode()).digest()) for number in numbers]
    store.put_many(keys, np.stack([np.random.default_rng(n).standard_normal(1000).astype(np.float32) for n in numbers]))
    assert not store.why, store.why
    sys.stdout.write(f"{numbers[-1]}\\n")
    sys.stdout.flush()
store.close()
"""


def start_writer(root, first, last, batch):
    command = [sys.executable, "-c", WRITER, str(root), str(first), str(last), str(batch)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_write_at_once(tmp_path):
    # Both begin with a small map, so each grows it under the other.
    writers = [start_writer(tmp_path, 0, 1500, 25), start_writer(tmp_path, 1500, 3000, 25)]
    with open_store(tmp_path, shape=(1000,)) as store:
        while any(writer.poll() is None for writer in writers):
            store.get_many([key_of(number) for number in range(0, 3000, 100)])
            time.sleep(0.02)
        for writer in writers:
            _, errors = writer.communicate()
            assert writer.returncode == 0, errors
        values, found = store.get_many([key_of(number) for number in range(3000)])
        assert found.all()
        assert store.why == ""
        np.testing.assert_array_equal(values, values_of(range(3000), 1000))


def test_kill_at_any_moment_loses_at_most_the_batch_in_flight(tmp_path):
    rng = random.Random(0)
    first = 0
    for _ in range(10):
        writer = start_writer(tmp_path, first, first + 100_000, 8)
        said = [writer.stdout.readline() for _ in range(rng.randint(1, 12))]  # it is at work
        assert all(said), writer.stderr.read()
        time.sleep(rng.random() * 0.03)
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        last_said = int([*said, *rest.split()][-1])
        with open_store(tmp_path, shape=(1000,)) as store:
            assert store.writable
            assert store.why == ""
            values, found = store.get_many([key_of(number) for number in range(last_said + 9)])
            assert found[: last_said + 1].all()
            assert found[last_said + 1 :].all() or not found[last_said + 1 :].any()  # a batch is there whole or not at all
            numbers = np.flatnonzero(found)
            np.testing.assert_array_equal(values[numbers[first:]], values_of(numbers[first:], 1000))
        first = len(numbers)
    assert info(tmp_path)[0].items == first


# Damage


@pytest.mark.parametrize("damage", ["garbage", "header", "cut", "short", "meta gone", "meta garbage", "other format"])
def test_a_damaged_store_is_begun_anew_with_a_word(tmp_path, damage):
    with open_store(tmp_path) as store:
        store.put_many([key_of(number) for number in range(300)], values_of(range(300)))
    file, meta = data_file(tmp_path), tmp_path / "features" / "abc123" / "meta.json"
    content = file.read_bytes()
    match damage:
        case "garbage":
            file.write_bytes(random.Random(0).randbytes(len(content)))
        case "header":
            file.write_bytes(random.Random(0).randbytes(8192) + content[8192:])
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "short":
            file.write_bytes(b"rubbish")
        case "meta gone":
            meta.unlink()
        case "meta garbage":
            meta.write_text("{")
        case "other format":
            meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format": 99}))
    with open_store(tmp_path) as store:
        assert store.writable
        assert damage == "meta gone" or "damaged" in store.why
        assert not store.get_many([key_of(1)])[1].any()
        store.put_many([key_of(1)], values_of([1]))
        assert store.get_many([key_of(1)])[1].all()
    with open_store(tmp_path) as store:
        assert store.why == ""
        np.testing.assert_array_equal(store.get_many([key_of(1)])[0], values_of([1]))
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["abc123"]


@pytest.mark.parametrize("seed", range(6))
def test_damaged_pages_inside_never_give_a_wrong_value(tmp_path, seed):
    keys = [key_of(number) for number in range(400)]
    with open_store(tmp_path, shape=(1000,)) as store:
        store.put_many(keys, values_of(range(400), 1000))
    rng = random.Random(seed)
    with data_file(tmp_path).open("r+b") as file:
        pages = data_file(tmp_path).stat().st_size // 4096
        for _ in range(1 if seed < 3 else 40):
            file.seek(rng.randrange(2, pages) * 4096)
            file.write(rng.randbytes(4096))
    with open_store(tmp_path, shape=(1000,)) as store:
        values, found = store.get_many(keys)
        np.testing.assert_array_equal(values[found], values_of(range(400), 1000)[found])
        assert not found.all()
        store.put_many(keys, values_of(range(400), 1000))
        if store.why == "":
            assert store.get_many(keys)[1].all()
    with open_store(tmp_path, shape=(1000,)) as store:
        store.put_many(keys, values_of(range(400), 1000))
        values, found = store.get_many(keys)
        np.testing.assert_array_equal(values[found], values_of(range(400), 1000)[found])


def test_a_flipped_bit_is_a_miss(tmp_path):
    with open_store(tmp_path, shape=(1000,)) as store:
        store.put_many([key_of(1)], values_of([1], 1000))
    content = bytearray(data_file(tmp_path).read_bytes())
    position = bytes(content).index(values_of([1], 1000).tobytes())
    content[position + 17] ^= 4
    data_file(tmp_path).write_bytes(content)
    with open_store(tmp_path, shape=(1000,)) as store:
        assert not store.get_many([key_of(1)])[1].any()
        store.put_many([key_of(1)], values_of([1], 1000))
        np.testing.assert_array_equal(store.get_many([key_of(1)])[0], values_of([1], 1000))


def test_two_users_of_a_store_that_breaks_go_on(tmp_path):
    first, second = open_store(tmp_path), open_store(tmp_path)
    first.put_many([key_of(1)], values_of([1]))

    def fail(transaction):
        raise lmdb.CorruptedError("made up")

    problem = pytest.raises(lmdb.CorruptedError, first._environment.read, fail).value
    first._failed(problem, "read")
    assert first.writable
    assert "begun anew" in first.why
    assert not second.get_many([key_of(1)])[1].any()
    assert second.why
    first.put_many([key_of(2)], values_of([2]))
    second.close()
    assert first.get_many([key_of(2)])[1].all()
    first.close()
    with open_store(tmp_path) as store:
        assert store.get_many([key_of(2)])[1].all()


# Disks that are full or forbidden


def as_nobody(code, *arguments):
    """Run Python code as a user whom permission bits stop; gives what it prints."""
    drop = "import os\nif os.geteuid() == 0: os.seteuid(65534)\n"
    imports = "import sys\nfrom pathlib import Path\nimport numpy as np\nfrom headstart.features.store import *\n"
    command = [sys.executable, "-c", imports + drop + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def open_folder():
    """A folder other users may enter, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="headstart-test-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(folder)


READER = """
with FeatureStore.open(Path(sys.argv[1]), "abc123", dtype="float32", shape=(16,), describe={}) as store:
    key = store_key(bytes(32))
    values, found = store.get_many([key])
    fresh = store.put_many([key, store_key(bytes(32), "new")], np.ones((2, 16), np.float64))
    again = store.get_many([store_key(bytes(32), "new")])[1]
    store.put_failure(key, "a", "b")
    print(store.writable, bool(found[0]), float(values.sum()), bool(again[0]), fresh.dtype, "|", store.why)
"""


def test_a_read_only_cache_is_read(open_folder):
    with open_store(open_folder) as store:
        store.put_many([store_key(bytes(32))], np.full((1, 16), 2.0))
    for path in [*open_folder.rglob("*"), open_folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    facts, _, why = as_nobody(READER, open_folder).partition("|")
    assert facts.split() == ["False", "True", "32.0", "False", "float32"]
    assert "only read" in why


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_forbidden_cache_caches_nothing(open_folder, below):
    open_folder.chmod(0o555)
    facts, _, why = as_nobody(READER, open_folder / below).partition("|")
    assert facts.split() == ["False", "False", "0.0", "False", "float32"]
    assert "nothing is cached" in why
    assert "enied" in why


def test_a_file_where_the_cache_should_be(tmp_path):
    (tmp_path / "cache").write_text("")
    with open_store(tmp_path / "cache") as store:
        assert not store.writable
        assert "nothing is cached" in store.why
        np.testing.assert_array_equal(store.put_many([key_of(1)], values_of([1])), values_of([1]))
        assert not store.get_many([key_of(1)])[1].any()
        assert store.get_failures([key_of(1)]) == {}


def test_a_full_disk_stops_the_caching_and_nothing_else(tmp_path):
    # A limit on the size of files: the write fails inside LMDB as it does on a full disk.
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
store = FeatureStore.open(Path({str(tmp_path)!r}), "abc123", dtype="float32", shape=(1000,), describe={{}})
rounds = 0
while store.writable:
    numbers = range(rounds * 10, rounds * 10 + 10)
    fresh = store.put_many([store_key(n.to_bytes(32, "big")) for n in numbers], np.full((10, 1000), rounds + 0.1))
    assert fresh.shape == (10, 1000) and fresh.dtype == np.float32
    rounds += 1
    assert rounds < 100
values, found = store.get_many([store_key(n.to_bytes(32, "big")) for n in range(rounds * 10)])
expected = np.float32(np.arange(rounds).repeat(10) + 0.1)[:, None]
print(rounds, int(found.sum()), bool((values[found] == expected[found]).all()), store.why)
"""
    imports = "import sys\nfrom pathlib import Path\nimport numpy as np\nfrom headstart.features.store import *\n"
    said = subprocess.run([sys.executable, "-c", imports + code], check=True, capture_output=True, text=True).stdout
    rounds, found, equal, why = said.split(maxsplit=3)
    assert int(rounds) > 2
    assert int(found) == 10 * (int(rounds) - 1)
    assert equal == "True"
    assert "cannot be written to" in why
    with open_store(tmp_path, shape=(1000,)) as store:  # room again
        assert store.why == ""
        assert store.get_many([store_key((0).to_bytes(32, "big"))])[1].all()


def test_a_truly_full_disk(tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", mounted], capture_output=True).returncode
    ):
        pytest.skip("no right to mount a small disk here")
    try:
        with open_store(mounted, shape=(1000,)) as store:
            for start in range(0, 1000, 10):
                numbers = range(start, start + 10)
                fresh = store.put_many([key_of(number) for number in numbers], values_of(numbers, 1000))
                np.testing.assert_array_equal(fresh, values_of(numbers, 1000))
            assert not store.writable
            assert "the disk is full" in store.why
            values, found = store.get_many([key_of(number) for number in range(1000)])
            assert 0 < found.sum() < 1000
            np.testing.assert_array_equal(values[found], values_of(np.flatnonzero(found), 1000))
        with open_store(mounted, "another") as store:
            store.put_many([key_of(1)], values_of([1]))
            assert store.why
    finally:
        subprocess.run([shutil.which("umount"), mounted], check=True)


def test_a_disk_that_fills_while_the_folder_is_made(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with open_store(tmp_path) as store:
        assert not store.writable
        assert "No space left on device" in store.why
    assert list((tmp_path / "features").iterdir()) == []


# Upkeep


def fill(root, fingerprint, num_items, age_seconds):
    with open_store(root, fingerprint, shape=(1000,)) as store:
        store.put_many([key_of(number) for number in range(num_items)], np.zeros((num_items, 1000)))
    moment = time.time() - age_seconds
    os.utime(root / "features" / fingerprint / "meta.json", (moment, moment))


def test_info_tells_what_is_there(tmp_path):
    assert info(tmp_path / "nothing") == []
    fill(tmp_path, "old", 5, 1000)
    fill(tmp_path, "new", 3, 10)
    (tmp_path / "features" / "broken").mkdir()
    records = info(tmp_path)
    assert {record.fingerprint: record.items for record in records} == {"old": 5, "new": 3, "broken": 0}
    assert [record.fingerprint for record in records if record.items] == ["new", "old"]
    assert records[-1].describe == {"backbone": "toy", "block": "pool"}
    assert records[-1].bytes >= data_file(tmp_path, "old").stat().st_size
    assert abs(time.time() - 1000 - records[-1].last_used) < 60
    with open_store(tmp_path, "new", shape=(1000,)) as store:
        assert info(tmp_path)[0].items == 3
        assert store.get_many([key_of(1)])[1].all()


def test_prune_removes_the_least_recently_used_whole(tmp_path):
    for age, name in enumerate(["d", "c", "b", "a"]):
        fill(tmp_path, name, 20, 1000 * age)
    with open_store(tmp_path, "a", shape=(1000,)):  # used now
        pass
    sizes = {record.fingerprint: record.bytes for record in info(tmp_path)}
    freed = prune(tmp_path, sizes["a"] + sizes["d"])
    assert {record.fingerprint for record in info(tmp_path)} == {"a", "d"}
    assert freed == sizes["b"] + sizes["c"]
    assert prune(tmp_path, 10**12) == 0
    assert prune(tmp_path, 0, keep="d") == sizes["a"]
    assert prune(tmp_path, 0) == sizes["d"]
    assert info(tmp_path) == []


def test_what_is_in_use_stays(tmp_path):
    fill(tmp_path, "idle", 5, 0)
    with open_store(tmp_path, "here", shape=(1000,)) as store:
        writer = start_writer(tmp_path, 0, 100_000, 1)  # keeps "abc123" open in another process
        assert writer.stdout.readline()
        try:
            assert clear(tmp_path) > 0
            assert {record.fingerprint for record in info(tmp_path)} == {"here", "abc123"}
            assert prune(tmp_path, 0) == 0
        finally:
            writer.kill()
            writer.communicate()
        store.put_many([key_of(1)], np.ones((1, 1000)))
        assert store.get_many([key_of(1)])[1].all()
    assert clear(tmp_path) > 0
    assert list((tmp_path / "features").iterdir()) == []
    assert clear(tmp_path / "nothing") == 0


def test_opening_keeps_the_others_under_the_limit(tmp_path, monkeypatch):
    fill(tmp_path, "old", 50, 1000)
    monkeypatch.setenv("HEADSTART_CACHE_LIMIT", "100 KB")
    with open_store(tmp_path, "new", shape=(1000,)) as store:
        assert [record.fingerprint for record in info(tmp_path)] == ["new"]
        numbers = range(100)
        for number in numbers:
            fresh = store.put_many([key_of(number)], values_of([number], 1000))
            np.testing.assert_array_equal(fresh, values_of([number], 1000))
        assert not store.writable
        assert "limit" in store.why
        assert 5 < store.get_many([key_of(number) for number in numbers])[1].sum() < 50
    assert data_file(tmp_path, "new").stat().st_size < 200_000


def test_scraps_of_killed_processes_are_removed(tmp_path):
    fill(tmp_path, "kept", 5, 0)
    for name in (".new-aaa", ".damaged-bbb"):
        (tmp_path / "features" / name).mkdir()
        os.utime(tmp_path / "features" / name, (0, 0))
    (tmp_path / "features" / ".new-fresh").mkdir()
    prune(tmp_path)
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == [".new-fresh", "kept"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 10**10), ("10GB", 10**10), ("500 mb", 5 * 10**8), ("1.5GiB", 3 << 29), ("123", 123), ("0", 0), ("2TB", 2 * 10**12)],
)
def test_the_limit_is_read(monkeypatch, text, expected):
    monkeypatch.setenv("HEADSTART_CACHE_LIMIT", text)
    assert cache_limit() == expected


@pytest.mark.parametrize("text", ["much", "-1GB", "10XB", "1e9", "GB", "٣GB"])
def test_a_limit_that_is_none_is_told(monkeypatch, tmp_path, text):
    monkeypatch.setenv("HEADSTART_CACHE_LIMIT", text)
    with pytest.raises(SettingError, match="HEADSTART_CACHE_LIMIT"):
        open_store(tmp_path)


def test_two_processes_that_begin_a_store_share_it(tmp_path):
    # The loser of the race finds the winner's folder.
    real = upkeep.atomic_write_text

    def slow(path, text, **options):
        real(path, text, **options)
        if not (tmp_path / "features" / "abc123").exists():
            upkeep.atomic_write_text = real
            open_store(tmp_path).close()

    upkeep.atomic_write_text = slow
    try:
        with open_store(tmp_path) as store:
            assert store.writable
            assert store.why == ""
    finally:
        upkeep.atomic_write_text = real
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["abc123"]
