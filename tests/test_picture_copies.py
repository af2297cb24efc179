"""Near copies of pictures: features find candidates, pixels confirm them, and classes made of copies are named."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from headstart.api.content import describe_leaks
from headstart.data import duplicates
from headstart.data.checks import find_problems
from headstart.data.duplicates import near_duplicate_groups
from headstart.preprocess.clips import ClipPreprocess
from headstart.preprocess.image import ImagePreprocess
from headstart.preprocess.picture_copies import PictureComparison
from headstart.records import Dataset, Sample


def star(points, colour="gold", size=(120, 110)):
    picture = Image.new("RGB", size, "white")
    radii = np.where(np.arange(2 * points) % 2, 18, 50)
    angles = np.pi * np.arange(2 * points) / points
    ImageDraw.Draw(picture).polygon(
        [(60 + r * np.sin(a), 55 - r * np.cos(a)) for r, a in zip(radii, angles, strict=True)], fill=colour
    )
    return picture


def card(pips, colour="black"):
    picture = Image.new("RGB", (90, 130), "white")
    pencil = ImageDraw.Draw(picture)
    pencil.rectangle((1, 1, 88, 128), outline="black")
    for x, y in [(45, 65), (25, 30), (65, 100), (65, 30), (25, 100), (25, 65), (65, 65), (45, 30), (45, 100)][:pips]:
        pencil.ellipse((x - 9, y - 9, x + 9, y + 9), fill=colour)
    return picture


def compare(one, other):
    return bool(PictureComparison([one, other])(np.array([[0, 1]]))[0])


@pytest.mark.parametrize("quality", [50, 90])
def test_a_picture_saved_anew_brightened_cropped_halved_or_mirrored_is_a_copy(draw, as_bytes, quality):
    for number in range(4):
        for label in ("rings", "blobs"):
            picture = draw(label, number)
            wide, high = picture.size
            for copy in (
                picture,
                ImageEnhance.Brightness(picture).enhance(1.1),
                picture.resize((wide // 2, high // 2)),
                ImageOps.mirror(picture),
            ):
                assert compare(picture, as_bytes(copy, "JPEG", quality=quality)), (label, number)
    picture = star(5)
    assert compare(picture, picture.crop((3, 3, 117, 107)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (star(5), star(9, "crimson")),
        (star(4), star(5, "seagreen")),
        (star(8), star(9)),
        (card(2), card(7)),
        (card(8), card(9)),
        (card(5, "red"), card(9, "black")),
        (star(5, "limegreen"), star(5, "red")),
        (Image.new("RGB", (50, 50), "white"), Image.new("RGB", (50, 50), "black")),
        (Image.new("RGB", (50, 50), "white"), star(5)),
    ],
)
def test_different_drawings_of_one_kind_are_no_copies(one, other):
    assert not compare(one, other)


def test_plain_pictures_of_one_colour_are_copies_and_what_is_gone_is_taken_at_its_features_word(tmp_path):
    assert compare(Image.new("RGB", (50, 50), "navy"), Image.new("RGB", (70, 40), (2, 1, 130)))
    assert compare(star(5), tmp_path / "gone.png")


def test_a_chain_of_alike_but_different_pictures_is_no_group():
    """Features all alike, as of drawings of one kind: only those of the same pixels are joined."""
    pictures = [card(pips) for pips in range(1, 10)] + [card(3), ImageEnhance.Brightness(card(3)).enhance(0.95)]
    features = np.ones((40, 16), np.float32) + np.random.default_rng(0).normal(0, 0.01, (40, 16)).astype(np.float32)
    features[len(pictures) :] = np.random.default_rng(1).normal(size=(40 - len(pictures), 16))
    ids = [f"{number:02d}" for number in range(40)]
    comparison = ImagePreprocess().pixel_comparison([*pictures, *[star(points) for points in range(4, 33)]])
    assert max(map(len, near_duplicate_groups(ids, features))) >= 11
    (group,) = near_duplicate_groups(ids, features, confirm=comparison)
    assert group == ("02", "09", "10")


def test_each_picture_is_read_once_and_joined_pairs_are_not_compared_again(monkeypatch):
    asked = []

    def confirm(pairs):
        asked.append(len(pairs))
        return np.ones(len(pairs), bool)

    monkeypatch.setattr(duplicates, "MOST_PAIRS", 100)
    features = np.concatenate([np.ones((60, 8)), np.random.default_rng(0).normal(size=(60, 8)) * 9]).astype(np.float32)
    ids = [f"{number:03d}" for number in range(120)]
    assert len(near_duplicate_groups(ids, features, 0.9999, confirm)[0]) == 60
    assert sum(asked) <= 100, "of 1,770 pairs, those behind the first hundred are in the group already"


def test_clips_have_no_pixels_to_compare():
    assert ClipPreprocess(picture=ImagePreprocess()).pixel_comparison([]) is None


def dataset_of(**counts):
    samples = [Sample(id=f"{label}{i}", item="x", labels=(label,)) for label, count in counts.items() for i in range(count)]
    return Dataset(samples=tuple(samples), labels=tuple(sorted(counts)), task="single", modality="image", source="test")


@pytest.mark.parametrize(
    ("group", "named"),
    [
        ([f"star{i}" for i in range(18)], ["star"]),
        ([f"star{i}" for i in range(9)], []),
        ([f"star{i}" for i in range(12)] + [f"tree{i}" for i in range(6)], ["star", "tree"]),
    ],
)
def test_a_class_that_is_mostly_near_copies_is_named(group, named):
    data = dataset_of(moon=10, star=20, tree=8)
    hashes = {sample.id: sample.id for sample in data.samples}
    found = [f for f in find_problems(data, hashes=hashes, near_duplicates=[tuple(group)]) if f.kind == "copied_class"]
    assert [finding.items[0][:4] for finding in found] == named
    for finding, label in zip(found, named, strict=True):
        assert f"'{label}'" in finding.message and set(finding.items) == {name for name in group if name.startswith(label)}


def test_exact_copies_and_near_ones_together_make_a_class_of_copies():
    data = dataset_of(moon=10, star=10)
    hashes = {sample.id: "same" if sample.id in {"star0", "star1", "star2"} else sample.id for sample in data.samples}
    (found,) = (
        finding
        for finding in find_problems(data, hashes=hashes, near_duplicates=[("star2", "star3", "star4")])
        if finding.kind == "copied_class"
    )
    assert len(found.items) == 5


def test_near_copies_of_training_items_are_not_said_to_be_seen():
    assert describe_leaks(0, 3, 40) == "of the 40 test items 3 closely resemble training items"
    assert describe_leaks(2, 0, 40) == "of the 40 test items 2 are copies of training items"
    assert describe_leaks(1, 1, 40) == (
        "of the 40 test items 1 is a copy of a training item and 1 closely resembles a training item"
    )
    samples = [Sample(id=f"a{i}", item="x", labels=("a",), split="train" if i < 5 else "test") for i in range(10)]
    samples += [Sample(id=f"b{i}", item="x", labels=("b",), split="train" if i < 5 else "test") for i in range(10)]
    data = Dataset(samples=tuple(samples), labels=("a", "b"), task="single", modality="audio", source="test")
    hashes = {sample.id: sample.id for sample in samples}
    (leak,) = (f for f in find_problems(data, hashes=hashes, near_duplicates=[("a0", "a7")]) if f.kind == "leak")
    assert "closely resembles a training item" in leak.message and "seen" not in leak.message
