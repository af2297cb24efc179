"""The image preprocess: one recipe, the same pixels from every kind of item, and a refusal for what is no whole picture."""

import base64
import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile, ImageOps

from headstart.errors import ArtifactError, DataError, SettingError
from headstart.preprocess.image import ImagePreprocess
from headstart.preprocess.items import UnreadableItemError, content_key, load_bytes
from headstart.preprocess.thumbnail import thumbnail_data_uri

PLAIN = ImagePreprocess(image_size=32, geometry="squash", draft=False)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def photo(wide, high, seed=0):
    """A picture with smooth and sharp parts."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (max(2, high // 12), max(2, wide // 12), 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((wide, high), Image.Resampling.BICUBIC)


def encoded(image, format_name, **options):
    stream = io.BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def refusal(item, preprocess=PLAIN):
    with pytest.raises(UnreadableItemError) as caught:
        preprocess.pixels(item)
    return caught.value


# The recipe


def test_the_recipe_survives_json():
    recipe = ImagePreprocess(image_size=96, geometry="pad", interpolation="lanczos", mean=(0.5, 0.5, 0.5), pad_color=(1, 2, 3))
    restored = ImagePreprocess.from_json(json.loads(json.dumps(recipe.as_json())))
    assert restored == recipe
    assert restored.fingerprint() == recipe.fingerprint()


def test_every_setting_changes_the_fingerprint_and_all_processes_agree():
    other = {
        "image_size": 100, "geometry": "pad", "interpolation": "nearest", "crop_fraction": 0.9, "mean": (0.1, 0.2, 0.3),
        "std": (1.0, 1.0, 1.0), "pad_color": (9, 9, 9), "background": (0, 0, 0), "draft": False, "max_pixels": 10**6,
    }  # fmt: skip
    assert set(other) == {field.name for field in dataclasses.fields(ImagePreprocess)}
    prints = {dataclasses.replace(ImagePreprocess(), **{name: value}).fingerprint() for name, value in other.items()}
    assert len(prints | {ImagePreprocess().fingerprint()}) == len(other) + 1
    code = (
        "from headstart.preprocess.image import ImagePreprocess; import sys; sys.stdout.write(ImagePreprocess().fingerprint())"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said == ImagePreprocess().fingerprint()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 0), ("image_size", True), ("image_size", 224.0), ("image_size", 5000), ("geometry", "fit"),
        ("geometry", ["crop"]), ("interpolation", "cubic"), ("interpolation", ["nearest"]), ("crop_fraction", 0),
        ("crop_fraction", 1.1), ("crop_fraction", float("nan")), ("mean", (0.5, 0.5)), ("std", (1.0, 0.0, 1.0)),
        ("std", (1.0, float("inf"), 1.0)), ("pad_color", (0, 0, 256)), ("background", [0, 0, 0]), ("draft", 1),
        ("max_pixels", 0),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_by_name(name, value):
    with pytest.raises(SettingError, match=name):
        ImagePreprocess(**{name: value})


def test_all_wrong_settings_are_told_at_once():
    with pytest.raises(SettingError, match=r"image_size=0 .*geometry='fit'.*std="):
        ImagePreprocess(image_size=0, geometry="fit", std=(0, 0, 0))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "text"}, {"rules": 2}, {"surprise": 1}, {"image_size": "224"}, {"mean": [0.5]}, {"mean": None}, {"std": "abc"},
    ],
)  # fmt: skip
def test_a_foreign_recipe_is_refused(change):
    with pytest.raises(ArtifactError):
        ImagePreprocess.from_json(ImagePreprocess().as_json() | change)


def test_an_incomplete_recipe_is_refused():
    spec = ImagePreprocess().as_json()
    del spec["std"]
    with pytest.raises(ArtifactError, match="std"):
        ImagePreprocess.from_json(spec)
    with pytest.raises(ArtifactError):
        ImagePreprocess.from_json([1, 2])


# Pixels as others make them

SIZES = [
    (500, 375),
    (375, 500),
    (224, 224),
    (256, 256),
    (1, 1),
    (1, 50),
    (50, 3),
    (333, 257),
    (1001, 777),
    (17, 19),
    (225, 223),
]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
@pytest.mark.parametrize(("image_size", "crop_fraction"), [(224, 0.875), (96, 1.0), (33, 0.77), (300, 0.904)])
def test_crop_is_timms_own_transform(interpolation, image_size, crop_fraction):
    from timm import data  # here, because it takes seconds that the other tests need not wait

    recipe = ImagePreprocess(image_size=image_size, crop_fraction=crop_fraction, interpolation=interpolation, draft=False)
    reference = data.create_transform(
        (3, image_size, image_size), interpolation=interpolation, crop_pct=crop_fraction, mean=recipe.mean, std=recipe.std
    )
    for wide, high in SIZES:
        image = photo(wide, high)
        expected = reference(image).numpy()
        mean, std = np.array(recipe.mean)[:, None, None], np.array(recipe.std)[:, None, None]
        levels = np.rint((expected * std + mean) * 255).transpose(1, 2, 0)
        apart = np.abs(recipe.pixels(image) - levels)
        # Both passes of a resize round to 8 bits, so a tie that falls the other way can count twice, but hardly ever does.
        assert apart.max() <= 2
        assert (apart > 1).mean() < 1e-3
        if interpolation == "nearest":
            assert apart.max() == 0
        np.testing.assert_allclose(recipe(image), expected, atol=2.1 / 255 / min(recipe.std))


@pytest.mark.parametrize(("wide", "high"), [*SIZES, (400, 20)])
def test_pad_is_pillows_own(wide, high):
    recipe = ImagePreprocess(image_size=64, geometry="pad", pad_color=(9, 8, 7), draft=False)
    image = photo(wide, high)
    expected = ImageOps.pad(image, (64, 64), Image.Resampling.BICUBIC, color=(9, 8, 7))
    np.testing.assert_array_equal(recipe.pixels(image), np.asarray(expected))


@pytest.mark.parametrize(("wide", "high"), SIZES)
def test_squash_is_pillows_own(wide, high):
    image = photo(wide, high)
    np.testing.assert_array_equal(PLAIN.pixels(image), np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("geometry", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(3, 100_000), (100_000, 3), (1, 200_000), (1, 1)])
def test_extreme_shapes_stay_small(geometry, shape):
    import tracemalloc

    item = np.full(shape, 200, np.uint8)
    recipe = ImagePreprocess(geometry=geometry)
    recipe.pixels(item)
    tracemalloc.start()
    result = recipe.pixels(item)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.shape == (224, 224, 3)
    assert (result[112, 112] == 200).all()
    assert peak < 16 << 20


def test_normalise_is_the_formula():
    batch = np.random.default_rng(0).integers(0, 256, (5, 9, 11, 3), dtype=np.uint8)
    recipe = ImagePreprocess()
    kept = batch.copy()
    result = recipe.normalise(batch)
    expected = ((batch / 255.0 - recipe.mean) / recipe.std).transpose(0, 3, 1, 2)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, expected, atol=1e-6)
    np.testing.assert_array_equal(batch, kept)
    np.testing.assert_array_equal(recipe.normalise(batch[::-1])[::-1], result)
    np.testing.assert_array_equal(np.concatenate([recipe.normalise(batch[i : i + 1]) for i in range(5)]), result)
    assert recipe.normalise(batch[:0]).shape == (0, 3, 9, 11)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 3, 8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32)]
)
def test_normalise_refuses_other_batches(wrong):
    with pytest.raises(SettingError, match="cannot be normalised"):
        ImagePreprocess().normalise(wrong)


# One picture, every container


def containers(image, folder):
    lossless = encoded(image, "PNG")
    path = folder / "Bild ä.jpg"  # the name's ending does not matter
    path.write_bytes(lossless)
    array = np.asarray(image)
    opened = Image.open(io.BytesIO(lossless))
    return [
        path,
        str(path),
        lossless,
        bytearray(lossless),
        image,
        opened,
        array,
        array[:, ::-1][:, ::-1],
        array.astype(np.float64) / 255,
    ]


@pytest.mark.parametrize("geometry", ["crop", "pad", "squash"])
def test_file_bytes_image_and_array_give_the_same_pixels(tmp_path, geometry):
    recipe = ImagePreprocess(image_size=48, geometry=geometry)
    results = [recipe.pixels(item) for item in containers(photo(70, 51), tmp_path)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    alone = recipe(containers(photo(70, 51), tmp_path)[0])
    assert alone.shape == recipe.input_shape
    np.testing.assert_array_equal(alone, recipe.normalise(np.stack(results))[3])


def test_items_are_not_changed():
    array = np.random.default_rng(0).random((20, 30, 3))
    array.setflags(write=False)
    image = photo(30, 20).convert("RGBA")
    before = image.tobytes()
    PLAIN.pixels(array)
    PLAIN.pixels(image)
    assert image.tobytes() == before
    assert image.mode == "RGBA"
    owned = PLAIN.pixels(np.zeros((32, 32, 3), np.uint8))
    owned[:] = 7  # the caller's own


def test_threads_give_what_one_gives(tmp_path):
    items = []
    for seed in range(24):
        path = tmp_path / f"{seed}.img"
        path.write_bytes(encoded(photo(300 + seed, 200, seed), ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")[seed % 6]))
        items.append(path)
    recipe = ImagePreprocess(image_size=40)
    expected = [recipe.pixels(item) for item in items]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(recipe.pixels, items * 2))
    for one, two in zip(expected * 2, found, strict=True):
        np.testing.assert_array_equal(one, two)


LOSSLESS = {"RGB": ["PNG", "BMP", "TIFF", "PPM", "TGA"], "L": ["PNG", "BMP", "TIFF", "GIF", "TGA"], "1": ["PNG", "TIFF", "BMP"]}


@settings(max_examples=60, deadline=None)
@given(
    wide=st.integers(1, 40),
    high=st.integers(1, 40),
    seed=st.integers(0, 10**6),
    mode=st.sampled_from(sorted(LOSSLESS)),
    pick=st.integers(0, 4),
    geometry=st.sampled_from(["crop", "pad", "squash"]),
)
def test_any_size_mode_and_format_gives_the_arrays_pixels(wide, high, seed, mode, pick, geometry):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (high, wide, 3), dtype=np.uint8)).convert(mode)
    recipe = ImagePreprocess(image_size=24, geometry=geometry)
    expected = recipe.pixels(np.asarray(image.convert("RGB")))
    content = encoded(image, LOSSLESS[mode][pick % len(LOSSLESS[mode])])
    np.testing.assert_array_equal(recipe.pixels(content), expected)
    np.testing.assert_array_equal(recipe.pixels(image), expected)
    assert recipe(content).dtype == np.float32


# Modes, by rule


def plain_color(item):
    pixels = np.asarray(PLAIN.decode(item)).reshape(-1, 3)
    assert (pixels == pixels[0]).all()
    return tuple(int(level) for level in pixels[0])


def test_alpha_lies_on_the_background():
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    assert plain_color(half) == (255, 127, 127)
    assert plain_color(encoded(half, "PNG")) == (255, 127, 127)
    assert plain_color(np.asarray(half)) == (255, 127, 127)
    on_black = dataclasses.replace(PLAIN, background=BLACK)
    assert tuple(on_black.pixels(half)[0, 0]) == (128, 0, 0)
    assert plain_color(Image.new("LA", (8, 8), (0, 0))) == WHITE
    assert plain_color(Image.new("RGBa", (8, 8), (0, 0, 0, 0))) == WHITE


def test_transparent_colors_of_png_and_gif():
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([0, 0, 0, 0, 0, 255, 0, 255, 0, 10, 20, 30])
    assert plain_color(encoded(palette, "PNG")) == (10, 20, 30)
    assert plain_color(encoded(palette, "PNG", transparency=3)) == WHITE
    assert plain_color(encoded(palette, "GIF", transparency=3)) == WHITE
    assert plain_color(encoded(Image.new("L", (8, 8), 77), "PNG", transparency=77)) == WHITE
    assert plain_color(encoded(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == WHITE
    assert plain_color(encoded(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(3, 2, 1))) == (1, 2, 3)
    assert plain_color(encoded(palette, "PNG", transparency=b"\xff\xff\xff\x00")) == WHITE


def test_palette_with_alpha():
    image = Image.new("PA", (8, 8))
    image.putpalette([10, 20, 30] * 256)
    image.putalpha(Image.new("L", (8, 8), 0))
    assert plain_color(image) == WHITE


@pytest.mark.parametrize("color", [(200, 30, 60), (20, 180, 90), (250, 250, 250), (5, 5, 5), (30, 60, 220)])
def test_cmyk_and_ycck_jpegs_keep_their_colors(color):
    cmyk = Image.new("RGB", (32, 32), color).convert("CMYK")
    content = encoded(cmyk, "JPEG", quality=98)
    assert b"Adobe" in content  # which is to say: stored inverted
    np.testing.assert_allclose(plain_color(content), color, atol=4)
    np.testing.assert_allclose(plain_color(cmyk), color, atol=1)
    np.testing.assert_allclose(plain_color(encoded(cmyk, "TIFF")), color, atol=1)
    # YCCK as libjpeg defines it (jdcolor.c, ycck_cmyk_convert): CMY turned to YCC, K inverted, and the mark that says so.
    cyan, magenta, yellow, key = cmyk.split()
    luma = Image.merge("RGB", [cyan, magenta, yellow]).convert("YCbCr").split()
    stored = Image.merge("CMYK", [*(ImageOps.invert(plane) for plane in luma), key])
    ycck = bytearray(encoded(stored, "JPEG", quality=98))
    mark = ycck.index(b"Adobe")
    assert ycck[mark + 11] == 0
    ycck[mark + 11] = 2
    np.testing.assert_allclose(plain_color(bytes(ycck)), color, atol=6)


def test_sixteen_bits_become_eight():
    levels = np.array([[0, 257, 128, 129, 65535, 32768, 65406, 65407]], np.uint16)
    expected = np.rint(levels / 257).astype(np.uint8)[0]
    gray = Image.fromarray(levels)
    assert gray.mode == "I;16"
    items = [levels, gray, encoded(gray, "PNG"), encoded(gray, "TIFF"), Image.fromarray(levels.astype(np.int32))]
    items.append(Image.frombytes("I;16B", (8, 1), levels.astype(">u2").tobytes()))
    items.append(levels.astype(">u2"))
    for item in items:
        np.testing.assert_array_equal(np.asarray(PLAIN.decode(item))[0, :, 0], expected)
    color = np.zeros((2, 2, 3), np.uint16)
    color[..., 1] = 65535
    assert plain_color(color) == (0, 255, 0)


def test_other_modes():
    assert plain_color(Image.new("1", (8, 8), 1)) == WHITE
    assert plain_color(np.ones((8, 8), bool)) == WHITE
    assert plain_color(Image.new("F", (8, 8), 0.5)) == (128, 128, 128)
    assert plain_color(encoded(Image.new("F", (8, 8), 1.0), "TIFF")) == WHITE
    assert plain_color(Image.new("HSV", (8, 8), (0, 255, 255))) == (255, 0, 0)
    np.testing.assert_allclose(plain_color(Image.new("RGB", (8, 8), (9, 99, 199)).convert("YCbCr")), (9, 99, 199), atol=2)
    np.testing.assert_allclose(plain_color(Image.new("LAB", (8, 8), (255, 128, 128))), WHITE, atol=2)
    assert plain_color(np.full((8, 8, 1), 3, np.uint8)) == (3, 3, 3)
    assert plain_color(np.full((8, 8, 4), 0.0, np.float16)) == WHITE


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (np.zeros((3, 8, 8), np.uint8), "unsupported"),
        (np.zeros((8, 8, 2), np.uint8), "unsupported"),
        (np.zeros(8, np.uint8), "unsupported"),
        (np.zeros((0, 8, 3), np.uint8), "zero_size"),
        (np.zeros((8, 0), np.float32), "zero_size"),
        (np.full((8, 8), np.nan), "unsupported"),
        (np.full((8, 8), 255.0), "unsupported"),
        (np.full((8, 8), -0.1), "unsupported"),
        (np.full((8, 8), np.inf), "unsupported"),
        (np.zeros((8, 8), np.int64), "unsupported"),
        (np.zeros((8, 8), complex), "unsupported"),
        (np.array([["a"]]), "unsupported"),
        (Image.new("F", (8, 8), 7.0), "unsupported"),
        (Image.new("I", (8, 8), -1), "unsupported"),
        (Image.new("RGB", (0, 5)), "zero_size"),
        (None, "unsupported"),
        (3.5, "unsupported"),
        ([1, 2], "unsupported"),
    ],
)
def test_items_outside_the_rules_are_refused(item, kind):
    assert refusal(item).kind == kind


# Upright, first frame


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation, format_name):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if format_name == "WEBP" else {}
    image = photo(60, 40)
    content = encoded(image, format_name, exif=exif, **options)
    stored = Image.open(io.BytesIO(encoded(image, format_name, **options))).convert("RGB")
    expected = image_as_the_standard_says(np.asarray(stored), orientation)
    np.testing.assert_array_equal(np.asarray(PLAIN.decode(content)), expected)
    np.testing.assert_array_equal(np.asarray(PLAIN.decode(Image.open(io.BytesIO(content)))), expected)


def image_as_the_standard_says(stored, orientation):
    """What the 0th row and 0th column of the stored image are of the upright one (EXIF 2.3, table 6)."""
    return {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.swapaxes(0, 1),
        6: stored.swapaxes(0, 1)[:, ::-1], 7: stored.swapaxes(0, 1)[::-1, ::-1], 8: stored.swapaxes(0, 1)[::-1],
    }[orientation]  # fmt: skip


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_damaged_metadata_are_no_reason_to_refuse(exif):
    image = photo(40, 30)
    content = encoded(image, "JPEG", exif=exif)
    np.testing.assert_array_equal(PLAIN.pixels(content), PLAIN.pixels(encoded(image, "JPEG")))


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(format_name):
    red, blue = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
    options = {"lossless": True} if format_name == "WEBP" else {}
    assert plain_color(encoded(red, format_name, save_all=True, append_images=[blue, red], **options)) == (255, 0, 0)


# Scaled decoding of JPEGs


@pytest.mark.parametrize("geometry", ["crop", "pad", "squash"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
@pytest.mark.parametrize(("wide", "high"), [(1003, 701), (611, 2005)])
def test_scaled_decoding_shows_the_same_picture_in_the_same_place(geometry, orientation, wide, high):
    # A ramp in both directions: a shift of one source pixel is a step that can be measured.
    across, down = np.meshgrid(np.linspace(0, 255, wide), np.linspace(0, 255, high))
    image = Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(image, "JPEG", quality=97, subsampling=0, exif=exif)
    recipe = ImagePreprocess(image_size=64, geometry=geometry)
    full = dataclasses.replace(recipe, draft=False)
    assert max(recipe.decode(content).size) < max(full.decode(content).size)
    apart = recipe.pixels(content).astype(int) - full.pixels(content)
    assert abs(apart.mean()) < 0.3
    assert np.abs(apart).max() <= 6


@settings(max_examples=40, deadline=None)
@given(
    wide=st.integers(1, 700),
    high=st.integers(1, 700),
    geometry=st.sampled_from(["crop", "pad", "squash"]),
    orientation=st.sampled_from([1, 6]),
)
def test_scaled_decoding_never_goes_below_what_is_needed(wide, high, geometry, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(Image.new("RGB", (wide, high), (10, 100, 200)), "JPEG", exif=exif)
    recipe = ImagePreprocess(image_size=40, geometry=geometry)
    upright = (high, wide) if orientation == 6 else (wide, high)
    decoded = recipe.decode(content).size
    shorter, longer = min(upright), max(upright)
    needed = {
        "crop": [side * 45 // shorter for side in upright],
        "pad": [side * 40 / longer for side in upright],
        "squash": [40, 40],
    }[geometry]
    assert all(got >= min(want, had) - 0.5 for got, want, had in zip(decoded, needed, upright, strict=True))
    assert decoded[0] in {-(-upright[0] // scale) for scale in (1, 2, 4, 8)}
    pixels = recipe.pixels(content)
    np.testing.assert_allclose(pixels[20, 20], (10, 100, 200), atol=3)


# Refusals

BROKEN = {
    "jpeg": lambda image: encoded(image, "JPEG"),
    "progressive": lambda image: encoded(image, "JPEG", progressive=True),
    "cmyk": lambda image: encoded(image.convert("CMYK"), "JPEG"),
    "png": lambda image: encoded(image, "PNG"),
    "gif": lambda image: encoded(image.quantize(32), "GIF"),
    "webp": lambda image: encoded(image, "WEBP"),
    "bmp": lambda image: encoded(image, "BMP"),
    "tiff": lambda image: encoded(image, "TIFF", compression="tiff_lzw"),
    "jpeg2000": lambda image: encoded(image, "JPEG2000"),
}


@pytest.mark.parametrize("format_name", sorted(BROKEN))
def test_a_cut_off_file_is_refused_or_whole_at_every_length(format_name):
    content = BROKEN[format_name](photo(40, 30))
    whole = PLAIN.pixels(content)
    kinds = set()
    for length in [*range(0, len(content), max(1, len(content) // 700)), *range(len(content) - 40, len(content))]:
        try:
            pixels = PLAIN.pixels(content[:length])
        except UnreadableItemError as problem:
            kinds.add(problem.kind)
        else:
            np.testing.assert_array_equal(pixels, whole)
    assert kinds <= {"empty", "unreadable", "truncated"}
    assert format_name == "tiff" or "truncated" in kinds


def test_a_library_that_allows_cut_off_files_changes_nothing(monkeypatch):
    content = encoded(photo(200, 150), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert refusal(content[: len(content) // 2]).kind == "truncated"
    assert PLAIN.pixels(content).shape == (32, 32, 3)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9), format_name=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]))
def test_damaged_files_give_pixels_or_the_one_error(seed, format_name):
    rng = np.random.default_rng(seed)
    content = bytearray(encoded(photo(24, 20, seed % 7), format_name))
    for position in rng.integers(0, len(content), rng.integers(1, 8)):
        content[position] = rng.integers(0, 256)
    try:
        assert dataclasses.replace(PLAIN, max_pixels=10**6).pixels(bytes(content)).shape == (32, 32, 3)
    except UnreadableItemError as problem:
        assert problem.reason


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_give_pixels_or_the_one_error(content):
    try:
        assert PLAIN.pixels(content).shape == (32, 32, 3)
    except UnreadableItemError as problem:
        assert (problem.kind == "empty") == (not content)


def test_what_is_no_picture_is_told_by_kind_and_name(tmp_path):
    files = {
        "empty.jpg": (b"", "empty"),
        "words.jpg": (b"dear diary, this is no picture", "unreadable"),
        "page.jpg": (b"<!DOCTYPE html><html>404</html>", "unreadable"),
        "zeros.png": (bytes(1000), "unreadable"),
        "drawing.svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported"),
        "paper.pdf": (b"%PDF-1.7 ...", "unsupported"),
        "figure.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "unsupported"),
    }
    for name, (content, kind) in files.items():
        (tmp_path / name).write_bytes(content)
        problem = refusal(tmp_path / name)
        assert problem.kind == kind, name
        assert str(tmp_path / name) in problem.what
        assert isinstance(problem, DataError)
    assert refusal(tmp_path).reason == "is a folder"
    assert "no such file" in refusal(tmp_path / "gone.jpg").reason
    assert "no such file" in refusal("gone.jpg").reason
    assert refusal("a\0b.jpg").kind == "unreadable"
    assert "photo of a cat" in str(pytest.raises(UnreadableItemError, PLAIN.pixels, b"abc", name="photo of a cat").value)


def test_a_named_pipe_does_not_stop_the_run(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert refusal(tmp_path / "pipe.jpg").reason == "is no regular file"


def test_permission_denied_is_told(tmp_path, monkeypatch):
    path = tmp_path / "secret.jpg"
    path.write_bytes(encoded(photo(9, 9), "PNG"))

    def deny(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    problem = refusal(path)
    assert "permission denied" in problem.reason
    assert problem.mend == f"chmod +r {path}"


def test_bombs_are_refused_before_they_are_decoded(monkeypatch):
    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = (20_000).to_bytes(4, "big") + (15_000).to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    problem = refusal(bomb)
    assert problem.kind == "bomb"
    assert "20000x15000 = 300,000,000 pixels" in problem.what
    assert "200,000,000" in problem.expected
    assert refusal(Image.new("1", (30, 30)), dataclasses.replace(PLAIN, max_pixels=800)).kind == "bomb"


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "GIF", "WEBP", "JPEG", "MPO"])
@pytest.mark.parametrize("pillows_limit", [6000, 3000])
def test_pillows_own_limit_neither_warns_nor_refuses(monkeypatch, format_name, pillows_limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)  # one warns at 100x80, the other refuses
    content = encoded(photo(100, 80), format_name)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert PLAIN.pixels(content).shape == (32, 32, 3)
    assert seen == []
    assert Image.MAX_IMAGE_PIXELS == pillows_limit


def ftyp(*brands):
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (len(body) + 4).to_bytes(4, "big") + body + bytes(64)


@pytest.mark.parametrize(
    ("content", "word", "package"),
    [
        (ftyp(b"heic", b"mif1", b"heic"), "HEIC", "pillow-heif"),
        (ftyp(b"mif1", b"mif1", b"heic"), "HEIC", "pillow-heif"),
        (b"\xff\x0a" + bytes(50), "JPEG XL", "pillow-jxl-plugin"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL", "pillow-jxl-plugin"),
    ],
    ids=["heic", "heic inside mif1", "bare jxl", "boxed jxl"],
)
def test_formats_that_need_a_package_are_refused_by_name(content, word, package, monkeypatch):
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)
    problem = refusal(content)
    assert problem.kind == "unsupported"
    assert word in problem.reason
    assert package in problem.mend


def test_a_plugin_that_is_there_is_used(monkeypatch):
    import types

    inside = photo(20, 10)

    def register():
        Image.register_open("HEIF", lambda stream, name: inside.copy(), lambda start: start[4:8] == b"ftyp")

    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    np.testing.assert_array_equal(PLAIN.pixels(ftyp(b"heic", b"mif1")), PLAIN.pixels(inside))


def test_avif_is_read_where_pillow_can():
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    np.testing.assert_allclose(plain_color(encoded(Image.new("RGB", (16, 16), (200, 50, 90)), "AVIF")), (200, 50, 90), atol=6)


def test_the_error_can_be_sent_to_another_process():
    problem = refusal(b"")
    copy = pickle.loads(pickle.dumps(problem))
    assert (copy.kind, copy.name, copy.reason, str(copy)) == (problem.kind, problem.name, problem.reason, str(problem))


def test_errors_in_threads_stay_with_their_item():
    contents = [encoded(photo(30, 30), "PNG"), b"", b"abc", encoded(photo(30, 30), "JPEG")[:400]] * 10
    barrier = threading.Barrier(2)

    def kinds(items):
        barrier.wait()
        found = []
        for item in items:
            try:
                PLAIN.pixels(item)
                found.append("fine")
            except UnreadableItemError as problem:
                found.append(problem.kind)
        return found

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(kinds, [contents, contents])
    assert one == two == [*kinds_alone(contents)]


def kinds_alone(contents):
    for content in contents:
        try:
            PLAIN.pixels(content)
            yield "fine"
        except UnreadableItemError as problem:
            yield problem.kind


# Keys and thumbnails


def test_the_key_follows_the_content(tmp_path):
    import hashlib

    content = encoded(photo(20, 20), "PNG")
    (tmp_path / "a.png").write_bytes(content)
    (tmp_path / "b.png").write_bytes(content)
    expected = hashlib.sha256(content).digest()
    assert content_key(tmp_path / "a.png") == content_key(str(tmp_path / "b.png")) == content_key(content) == expected
    assert load_bytes(tmp_path / "a.png") == content
    assert content_key(content + b"x") != expected
    with pytest.raises(UnreadableItemError):
        content_key(tmp_path / "gone")
    with pytest.raises(UnreadableItemError):
        content_key({})


def test_arrays_and_images_of_different_pictures_have_different_keys():
    zeros = np.zeros((4, 6), np.uint8)
    turned = Image.new("L", (6, 4))
    turned.getexif()[ExifTags.Base.Orientation] = 6
    one, two = Image.new("P", (6, 4)), Image.new("P", (6, 4))
    one.putpalette([1, 2, 3])
    two.putpalette([3, 2, 1])
    clear = Image.new("L", (6, 4))
    clear.info["transparency"] = 0
    items = [
        zeros, zeros.reshape(6, 4), zeros.astype(bool), zeros.view(np.int8), zeros.astype(np.uint16), zeros.astype(">u2"),
        zeros[None], zeros[:0], Image.new("L", (6, 4)), Image.new("L", (4, 6)), Image.new("RGB", (6, 4)), turned, one, two,
        clear,
    ]  # fmt: skip
    assert len({content_key(item) for item in items}) == len(items)
    ramp = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert content_key(ramp) == content_key(np.asfortranarray(ramp)) == content_key(ramp[::-1][::-1])
    assert content_key(ramp.T) == content_key(np.ascontiguousarray(ramp.T))


@pytest.mark.parametrize(("wide", "high", "expected"), [(400, 200, (96, 48)), (3, 900, (1, 96)), (20, 10, (20, 10))])
def test_thumbnails_fit(wide, high, expected):
    for item in (photo(wide, high), encoded(photo(wide, high), "JPEG")):
        uri = thumbnail_data_uri(item)
        head, _, body = uri.partition(",")
        assert head == "data:image/jpeg;base64"
        image = Image.open(io.BytesIO(base64.b64decode(body, validate=True)))
        assert image.size == expected
    with pytest.raises(UnreadableItemError):
        thumbnail_data_uri(b"")


def test_neither_torch_nor_timm_is_needed():
    code = """
import sys
import numpy as np
from headstart.preprocess.image import ImagePreprocess
ImagePreprocess()(np.zeros((9, 9), np.uint8))
assert not {"torch", "torchvision", "timm"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def webp_of(wide, high):
    """A lossless WebP of some 40 bytes that declares a size."""
    body = b"\x2f" + ((wide - 1) | ((high - 1) << 14)).to_bytes(4, "little") + bytes(15)
    chunk = b"VP8L" + len(body).to_bytes(4, "little") + body
    return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk


def jpeg_of(scans):
    """A progressive JPEG whose last scan is repeated."""
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]


@pytest.mark.parametrize("size", [(16_000, 12_000), (16_000, 1_300), (5_000, 5_000)])
def test_a_few_bytes_that_declare_many_pixels_are_refused(size):
    content = webp_of(*size)
    assert len(content) == 40
    with pytest.raises(UnreadableItemError) as caught:
        ImagePreprocess().pixels(content)
    assert caught.value.kind == "bomb"


def test_a_jpeg_of_many_scans_is_refused_and_one_of_some_is_read():
    with pytest.raises(UnreadableItemError) as caught:
        ImagePreprocess().pixels(jpeg_of(700))
    assert caught.value.kind == "bomb"
    assert ImagePreprocess(image_size=32).pixels(jpeg_of(10)).shape == (32, 32, 3)


def test_pictures_without_contrast_are_noticed():
    random = np.random.default_rng(0)
    noise = random.integers(0, 1000, (40, 40)).astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    items = {
        "sliver": stream.getvalue(),
        "sliver array": noise,
        "black": np.zeros((40, 40, 3), np.uint8),
        "floats of 8 bits divided twice": random.random((40, 40)) / 255,
        "whole range": noise * 60,
        "one colour channel": np.dstack([noise // 4, noise * 0, noise * 0]).astype(np.uint8),
        "not readable": b"none",
    }
    (found,) = ImagePreprocess().notice(items)
    assert (found.kind, found.severity) == ("no_contrast", "warning")
    assert found.items == ("sliver", "sliver array", "black", "floats of 8 bits divided twice")
    assert ImagePreprocess().notice({"a": items["whole range"]}) == []
