"""Augmented views: the same pixels always and everywhere, and nothing where every knob is off."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import SettingError
from headstart.tuning.augment import Augmentation

OFF = Augmentation(flip=False, rotate=0, shear=0, zoom=0, crop=0, brightness=0, contrast=0, saturation=0, hue=0)


def picture(seed, side=24):
    """A smooth picture, none of whose changes is hidden by noise."""
    y, x = np.mgrid[:side, :side] / side
    random = np.random.default_rng(seed)
    waves = [np.sin(2 * np.pi * (random.uniform(0.3, 2) * x + random.uniform(0.3, 2) * y + random.random())) for _ in range(3)]
    return ((np.stack(waves, axis=-1) + 1) * 120).astype(np.uint8)


def digest_of(number):
    return hashlib.sha256(str(number).encode()).digest()


CODE = """
import hashlib, sys
import numpy as np
from headstart.tuning.augment import Augmentation
pixels = np.load(sys.argv[1])
augmentation = Augmentation()
for number in range(4):
    digest = hashlib.sha256(str(number).encode()).digest()
    for view in augmentation.view_names(3):
        sys.stdout.write(hashlib.sha256(augmentation(pixels, digest, view).tobytes()).hexdigest() + chr(10))
"""


def test_a_view_is_the_same_in_every_process_and_thread(tmp_path, run_python):
    pixels = picture(0)
    np.save(tmp_path / "pixels.npy", pixels)
    augmentation = Augmentation()
    asked = [(digest_of(number), view) for number in range(4) for view in augmentation.view_names(3)]
    before = pixels.copy()
    here = [augmentation(pixels, *each) for each in asked]
    assert np.array_equal(pixels, before)
    with ThreadPoolExecutor(4) as pool:
        threads = list(pool.map(lambda each: augmentation(pixels, *each), asked * 3))
    assert all(np.array_equal(one, here[place % len(here)]) for place, one in enumerate(threads))
    told = run_python(CODE, tmp_path / "pixels.npy", OMP_NUM_THREADS="1")
    assert told.stdout.split() == [hashlib.sha256(one.tobytes()).hexdigest() for one in here], told.stderr
    assert len({one.tobytes() for one in here}) == len(here)  # other items and views differ


@given(st.integers(0, 10_000), st.integers(5, 40), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_with_every_knob_off_a_view_is_the_picture(seed, side, number):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    (view,) = OFF.view_names(1)
    assert np.array_equal(OFF(pixels, digest_of(number), view), pixels)


KNOBS = {"flip": True, "rotate": 20.0, "shear": 20.0, "zoom": 0.4, "crop": 0.6, "brightness": 0.5, "contrast": 0.5}
KNOBS |= {"saturation": 0.9, "hue": 0.4}


@pytest.mark.parametrize("knob", KNOBS)
def test_each_knob_alone_changes_something_and_is_named_in_the_view(knob):
    augmentation = replace(OFF, **{knob: KNOBS[knob]})
    views = augmentation.view_names(6)
    assert not set(views) & set(OFF.view_names(6))
    pixels = picture(1)
    results = [augmentation(pixels, digest_of(0), view) for view in views]
    assert any(not np.array_equal(result, pixels) for result in results)
    if knob == "flip":
        assert {result.tobytes() for result in results} == {pixels.tobytes(), pixels[:, ::-1].tobytes()}
    if knob in {"brightness", "contrast"}:
        assert all(result[0, 0].argmax() == pixels[0, 0].argmax() for result in results)


@given(
    st.fixed_dictionaries(
        {
            "flip": st.booleans(),
            "rotate": st.floats(0, 180),
            "shear": st.floats(0, 60),
            "zoom": st.floats(0, 0.9),
            "crop": st.floats(0, 0.95),
            "brightness": st.floats(0, 1),
            "contrast": st.floats(0, 1),
            "saturation": st.floats(0, 1),
            "hue": st.floats(0, 0.5),
            "seed": st.integers(0, 5),
        }
    ),
    st.integers(1, 33),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_allowed_gives_pixels_of_the_same_shape_and_twice_the_same(knobs, side, number):
    augmentation = Augmentation(**knobs)
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    view = augmentation.view_names(2)[number % 2]
    one, other = augmentation(pixels, digest_of(number), view), Augmentation(**knobs)(pixels, digest_of(number), view)
    assert one.shape == pixels.shape
    assert one.dtype == np.uint8
    assert one.flags.c_contiguous
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "value"), [("hue", 0.6), ("zoom", 1.0), ("crop", 1.0), ("rotate", -1), ("contrast", 1.5), ("shear", float("nan"))]
)
def test_a_change_that_no_picture_can_be_given_is_refused(name, value):
    with pytest.raises(SettingError, match=f"the augmentation's {name} is"):
        Augmentation(**{name: value})


def test_names_of_views_tell_everything_and_fit_a_key():
    names = Augmentation().view_names(3)
    assert names == Augmentation().view_names(5)[:3]
    others = [replace(Augmentation(), seed=1)] + [
        replace(Augmentation(), **{f.name: KNOBS[f.name]}) for f in fields(OFF) if f.name in KNOBS
    ]
    changed = [other.view_names(1)[0] for other in others if other != Augmentation()]
    assert len(set(changed) | {names[0]}) == len(changed) + 1
    assert all(len(name.encode()) < 400 for name in names)
