"""States at a cut: kept or computed again, they are the same bytes; and what cannot be kept is said."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.features import states as states_module
from headstart.features.extract import PLAIN
from headstart.features.prefix import STATE, BlockSlice, PrefixSpec
from headstart.features.states import open_states
from headstart.preprocess.image import ImagePreprocess
from headstart.preprocess.items import UnreadableItemError
from headstart.records import Sample
from headstart.tuning.augment import Augmentation

SIDE, SHAPE, POOLED = 16, (4, 3, 3), 5


class Prefix:
    """Some function of the pixels, item by item, that counts what it is asked; stands for a compiled network."""

    num_workers, batch_size, precision, model_path = 2, 4, "float32", None

    def __init__(self, *, factor=1.0, sha256="0" * 64):
        block = BlockInfo(name="middle", width=SHAPE[0], num_parameters=1)
        info = BackboneInfo(
            name="toy",
            architecture="toy",
            modality="image",
            licence="",
            source="",
            sha256=sha256,
            width=4,
            num_parameters=1,
            blocks=(block,),
        )
        size = int(np.prod(SHAPE))
        self.spec = PrefixSpec(
            info=info,
            preprocess=PREPROCESS,
            layout=(BlockSlice(name=STATE, start=0, width=size), BlockSlice(name="stem", start=size, width=POOLED)),
            relative_error=None,
            cut="middle",
            state_shape=SHAPE,
        )
        self.factor = factor
        self.asked = 0
        self._lock = threading.Lock()

    def __call__(self, batch):
        with self._lock:
            self.asked += len(batch)
        flat = batch.reshape(len(batch), -1)
        angles = flat.sum(axis=1, keepdims=True) * 0.37 + np.arange(self.spec.width, dtype=np.float32)
        # An item that is mostly white is far above the others.
        bright = np.where(flat.mean(axis=1, keepdims=True) > 2.0, self.factor, 1.0)
        return (np.sin(angles) * bright).astype(np.float32)


PREPROCESS = ImagePreprocess(image_size=SIDE)
VIEWS = Augmentation().view_names(2)


@pytest.fixture
def items(tmp_path):
    """Samples by id, and the digests of their content."""
    (tmp_path / "items").mkdir()
    samples = {}
    for number in range(11):
        path = tmp_path / "items" / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 120, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        samples[path.name] = Sample(id=path.name, item=path, labels=("a",))
    digests = {id_: hashlib.sha256(sample.item.read_bytes()).digest() for id_, sample in samples.items()}
    return SimpleNamespace(samples=samples, digests=digests, ids=list(samples))


@pytest.fixture(autouse=True)
def own_cache(empty_cache, monkeypatch):
    # What is tried must not depend on the clock here: this prefix is as quick as reading.
    monkeypatch.setattr(states_module, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    return empty_cache


def opened(prefix, items, num_views=3):
    return open_states(prefix, PREPROCESS, items.samples, items.digests, num_views=num_views, augment=Augmentation())


def all_states(reader, items):
    return {view: reader.load(items.ids, view) for view in (PLAIN, *VIEWS)}


def assert_same_bytes(one, other):
    for view in one:
        for part, again in zip(one[view], other[view], strict=True):
            assert part.dtype == again.dtype == np.float32
            assert part.tobytes() == again.tobytes()


def test_kept_states_are_those_computed_anew_bit_for_bit(items, monkeypatch):
    prefix = Prefix()
    with opened(prefix, items) as reader:
        assert reader.note == ""
        assert reader.shape == SHAPE
        fresh = all_states(reader, items)
        assert prefix.asked > 0
    with opened(prefix, items) as reader:
        progress = []
        assert reader.fill(items.ids, (PLAIN, *VIEWS), lambda done, total: progress.append((done, total))) == 0
        asked = prefix.asked
        kept = all_states(reader, items)
        assert prefix.asked == asked
    assert_same_bytes(fresh, kept)
    monkeypatch.setenv("HEADSTART_CACHE_LIMIT", "1KB")
    with opened(prefix, items) as reader:
        assert reader.note
        again = all_states(reader, items)
        assert prefix.asked >= asked + 3 * len(items.ids)
    assert_same_bytes(fresh, again)
    state, pooled = fresh[PLAIN]
    assert state.shape == (11, *SHAPE)
    assert pooled.shape == (11, POOLED)
    # Rounded to half precision, and no further; columns go where the spec says.
    pixels = np.stack([PREPROCESS.pixels(sample.item, name=id_) for id_, sample in items.samples.items()])
    exact = prefix(PREPROCESS.normalise(pixels))
    np.testing.assert_array_equal(np.hstack([state.reshape(11, -1), pooled]), exact.astype(np.float16).astype(np.float32))


def test_order_and_repeats_are_as_asked_from_any_thread(items):
    with opened(Prefix(), items) as reader:
        reader.fill(items.ids, (PLAIN, *VIEWS))
        state, pooled = reader.load(items.ids, VIEWS[0])
        orders = [np.random.default_rng(seed).integers(0, 11, 7) for seed in range(12)]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda rows: reader.load([items.ids[row] for row in rows], VIEWS[0]), orders))
        for rows, (some, few) in zip(orders, results, strict=True):
            assert np.array_equal(some, state[rows])
            assert np.array_equal(few, pooled[rows])


def test_only_what_is_missing_is_computed(items):
    prefix = Prefix()
    with opened(prefix, items) as reader:
        assert reader.fill(items.ids[:6], (PLAIN, VIEWS[0])) == 6
    with opened(prefix, items) as reader:
        before = prefix.asked
        progress = []
        done = reader.fill(items.ids, (PLAIN, *VIEWS), lambda done, total: progress.append((done, total)))
        assert done == 11
        # Six lack one view; of the five others one view may be there: those tried when the store was opened.
        tried = len([id_ for id_ in items.ids[: 2 * prefix.batch_size] if id_ in items.ids[6:]])
        assert prefix.asked - before == 6 + 5 * 3 - tried
        assert progress[-1] == (11, 11)
        assert reader.fill(items.ids, (PLAIN, *VIEWS)) == 0


def test_views_are_the_augmentations_and_differ(items):
    prefix = Prefix()
    with opened(prefix, items) as reader:
        states = all_states(reader, items)
    assert len({states[view][0].tobytes() for view in states}) == 3
    id_ = items.ids[4]
    pixels = Augmentation()(PREPROCESS.pixels(items.samples[id_].item, name=id_), items.digests[id_], VIEWS[1])
    exact = prefix(PREPROCESS.normalise(pixels[None]))
    assert np.array_equal(states[VIEWS[1]][0][4].ravel(), exact[0, : int(np.prod(SHAPE))].astype(np.float16).astype(np.float32))


def test_values_beyond_half_precision_are_kept_in_single(items):
    prefix = Prefix(factor=1e6)
    for id_ in items.ids:
        whiten(items, id_)
    with opened(prefix, items) as reader:
        assert reader.dtype == "float32"
        reader.fill(items.ids, (PLAIN,))
        state, _ = reader.load(items.ids)
        assert reader.note == ""
    assert np.abs(state).max() > 1e5


def whiten(items, id_):
    path = items.samples[id_].item
    pixels = np.full((20, 20, 3), 255, np.uint8)
    pixels[0, 0] = int(id_.split(".")[0])
    Image.fromarray(pixels).save(path)
    items.digests[id_] = hashlib.sha256(path.read_bytes()).digest()


@pytest.mark.parametrize("when", ["filled", "loaded"])
def test_a_value_too_large_that_turns_up_late_widens_the_store(when, items, monkeypatch):
    """The last item is none of those tried when the store is opened."""
    prefix = Prefix(factor=1e6)
    whiten(items, items.ids[-1])
    with opened(prefix, items) as reader:
        assert reader.dtype == "float16"
        if when == "filled":
            reader.fill(items.ids, (PLAIN,))
            assert reader.dtype == "float32"
            asked = prefix.asked
        state, _ = reader.load(items.ids)
        assert reader.dtype == "float32"
        if when == "filled":
            assert prefix.asked == asked
        assert np.isfinite(state).all()
        assert np.abs(state[-1]).max() > 1e5
        assert reader.note == ""
    # The next run gives the same, though it begins with the narrow type again.
    with opened(prefix, items) as reader:
        reader.fill(items.ids, (PLAIN,))
        assert np.array_equal(reader.load(items.ids)[0], state)


def test_states_that_would_take_too_much_of_the_cache_are_computed_again_and_it_is_said(items, monkeypatch):
    prefix = Prefix()
    size = 11 * 3 * prefix.spec.width * 2
    monkeypatch.setenv("HEADSTART_CACHE_LIMIT", str(2 * size + 2))
    with opened(prefix, items) as reader:
        assert reader.note == ""
    monkeypatch.setenv("HEADSTART_CACHE_LIMIT", str(2 * size - 2))
    with opened(prefix, items) as reader:
        assert reader.note.startswith("the features at middle are computed again in every epoch: they would take")
        assert "half of the cache's limit" in reader.note
        assert reader.fill(items.ids, (PLAIN, *VIEWS)) == 0
        before = prefix.asked
        for _ in range(2):
            reader.load(items.ids, VIEWS[0])
        assert prefix.asked - before == 22


def test_reading_that_takes_longer_than_computing_is_not_worth_it(items, monkeypatch):
    ticks = iter([0.0, 0.1, 5.0, 5.4])
    monkeypatch.setattr(states_module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    with opened(Prefix(), items) as reader:
        assert reader.note.endswith(
            "computed again in every epoch: reading them back takes 4.0 times as long as computing them."
        )


@pytest.fixture
def read_only(monkeypatch):
    """Makes every store that is opened from now on one that cannot be written to; permissions do not bind root."""

    def forbid():
        opening = states_module.feature_store

        def closed(*arguments, **settings):
            manager = opening(*arguments, **settings)

            class Manager:
                def __enter__(self):
                    store = manager.__enter__()
                    store._writable = False
                    store.why = "the cache folder cannot be written to"
                    return store

                def __exit__(self, *error):
                    return manager.__exit__(*error)

            return Manager()

        monkeypatch.setattr(states_module, "feature_store", closed)

    return forbid


def test_a_cache_that_is_only_read_is_read_and_what_it_lacks_is_computed_again(items, read_only):
    prefix = Prefix()
    with opened(prefix, items) as reader:
        reader.fill(items.ids, (PLAIN, VIEWS[0]))
        kept = reader.load(items.ids, VIEWS[0])
    read_only()
    with opened(prefix, items) as reader:
        assert reader.note == "the features at middle are computed again in every epoch: the cache folder cannot be written to."
        before = prefix.asked
        again = reader.load(items.ids, VIEWS[0])
        assert prefix.asked == before
        assert reader.fill(items.ids, (PLAIN, *VIEWS)) == 0
        assert reader.note
        reader.load(items.ids, VIEWS[1])
        reader.load(items.ids, VIEWS[1])
        assert prefix.asked - before == 22
        assert reader.fill(items.ids, (PLAIN, VIEWS[0])) == 0
        assert reader.note == ""  # all that is wanted is there
    assert_same_bytes({"": kept}, {"": again})


def test_a_cache_that_fills_up_on_the_way_is_said(items, monkeypatch):
    prefix = Prefix()
    with opened(prefix, items) as reader:
        reader.store._limit_bytes = 1
        reader.fill(items.ids, (PLAIN, *VIEWS))
        assert "have reached the limit of the cache" in reader.note
        all_states(reader, items)


def test_an_item_that_vanished_is_named(items):
    with opened(Prefix(), items) as reader:
        items.samples["10.png"].item.unlink()
        progress = []
        reader.fill(items.ids, (PLAIN,), lambda done, total: progress.append(done))
        assert progress[-1] == 10
        reader.load(items.ids[:10])
        with pytest.raises(UnreadableItemError, match=r"10\.png.*could be read when the run began, and cannot now"):
            reader.load(items.ids)


def test_other_weights_have_other_states(items):
    with opened(Prefix(), items) as reader:
        reader.fill(items.ids, (PLAIN,))
    other = Prefix(sha256="1" * 64)
    with opened(other, items) as reader:
        before = other.asked
        assert reader.fill(items.ids, (PLAIN,)) == 11 - 2 * other.batch_size
        assert other.asked > before
