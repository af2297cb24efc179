"""Clips become frames: which ones, of what, upright and whole; and everything that is none is refused in words."""

import io
import sys

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from PIL import Image

from clip_files import clip_bytes, counting, wander, write_clip, write_sound
from headstart.errors import ArtifactError, MissingPackageError, SettingError, install_command
from headstart.preprocess import items as items_module
from headstart.preprocess.clip_items import find_clip_kind
from headstart.preprocess.clips import SIZE_OF_CLIP, SIZE_OF_STILL, ClipPreprocess
from headstart.preprocess.containers import VideoKind, find_video_kind
from headstart.preprocess.image import ImagePreprocess
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.recipe import preprocess_from_json, suit
from headstart.preprocess.timeline import Timeline, place_frames

PLAIN = ImagePreprocess(image_size=16, geometry="squash", interpolation="bilinear")
CLIPS = ClipPreprocess(picture=PLAIN)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A clip of 60 frames that know their number, 10 a second, in one group of pictures."""
    return write_clip(tmp_path_factory.mktemp("clips") / "numbered.mp4", counting(60))


def numbers_in(prepared):
    """The numbers of the frames that `counting` made."""
    return [round(float(frame.mean()) / 4) for frame in prepared]


def as_animation(frames, kind="GIF", **settings):
    first, *others = frames
    stream = io.BytesIO()
    first.save(stream, kind, save_all=True, append_images=others, **settings)
    return stream.getvalue()


# Which frames


def test_frames_lie_in_the_middles_of_equal_parts(numbered):
    """Without a key frame in a part, it is the frame at its middle."""
    found = numbers_in(CLIPS.prepare(numbered))
    middles = [(part + 0.5) * 60 / 8 for part in range(8)]
    assert len(found) == 8
    # The first part has the key frame that every clip begins with.
    assert found[0] == 0
    assert all(abs(number - middle) <= 1 for number, middle in zip(found[1:], middles[1:], strict=True))


@pytest.mark.parametrize(
    ("codec", "suffix", "settings"),
    [
        ("libx264", ".mp4", {}),
        ("libx264", ".mov", {"g": "7"}),
        ("libx264", ".mkv", {"g": "20"}),
        ("mpeg4", ".avi", {"qscale": "2"}),
        ("libvpx-vp9", ".webm", {"crf": "10", "deadline": "realtime", "cpu-used": "8"}),
        ("mpeg2video", ".mpg", {"b": "2M"}),
        ("mpeg2video", ".m2ts", {"b": "2M"}),
    ],
)
def test_every_container_gives_a_frame_of_each_part(codec, suffix, settings, tmp_path):
    rate = 25 if codec == "mpeg2video" else 10
    path = write_clip(tmp_path / f"clip{suffix}", counting(60, size=(64, 48)), codec=codec, rate=rate, **settings)
    found = numbers_in(CLIPS.prepare(path))
    assert len(found) == 8
    for part, number in enumerate(found):
        assert part * 7.5 - 1 <= number <= (part + 1) * 7.5 + 1
    assert np.array_equal(CLIPS.prepare(path.read_bytes()), CLIPS.prepare(str(path)))


def test_key_frames_are_taken_where_a_part_has_one(tmp_path):
    """They can be decoded alone."""
    path = write_clip(tmp_path / "keys.mp4", counting(60), g="5", sc_threshold="0", bf="0")
    assert all(number % 5 == 0 for number in numbers_in(CLIPS.prepare(path)))


def test_moments_are_spread_over_any_timeline():
    even = Timeline(shown=tuple(range(0, 1000, 10)), keys=(0,), tick_seconds=0.01)
    assert place_frames(even, 4) == (0, 375, 625, 875)
    assert place_frames(Timeline(shown=(3, 9), keys=(3,), tick_seconds=1), 8) == (3, 9)
    assert place_frames(Timeline(shown=even.shown, keys=(0, 400, 480, 990), tick_seconds=1), 2) == (400, 990)
    assert even.seconds == pytest.approx(10)
    # Many frames in the first second, few in the rest: time counts, not their number.
    uneven = Timeline(shown=(*range(100), 500, 900), keys=(0,), tick_seconds=1)
    assert place_frames(uneven, 3)[1:] == (454, 757)


def test_frames_on_the_way_are_passed_over_and_the_others_are_exact(tmp_path):
    """Of long parts those frames are not decoded that no other refers to; what is decoded is what a player shows."""
    picture = Image.effect_noise((200, 200), 60).convert("RGB")
    path = write_clip(tmp_path / "long.mp4", wander(picture, 136), rate=25, preset="fast")
    exact = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    with av.open(str(path)) as container:
        frames = [frame.reformat(format="rgb24", interpolation=exact).to_ndarray() for frame in container.decode(video=0)]
    shown = {PLAIN.pixels(frame).tobytes() for frame in frames}
    recipe = ClipPreprocess(picture=ImagePreprocess(image_size=16, geometry="squash", interpolation="bilinear", draft=False))
    prepared = recipe.prepare(path)
    assert len(prepared) == 8 and all(frame.tobytes() in shown for frame in prepared)


def test_longer_clips_give_more_frames_up_to_a_limit():
    assert [CLIPS.count_frames(seconds) for seconds in (0, 10, 32, 33, 60, 64, 7200)] == [8, 8, 8, 9, 15, 16, 16]


def test_a_short_clip_gives_every_frame_it_has():
    assert numbers_in(CLIPS.prepare(clip_bytes(counting(3)))) == [0, 1, 2]
    assert numbers_in(CLIPS.prepare(clip_bytes(counting(1)))) == [0]


def test_a_large_file_is_read_where_it_lies(numbered, monkeypatch):
    known = CLIPS.digest(CLIPS.load(numbered))
    expected = CLIPS.prepare(numbered)
    monkeypatch.setattr(items_module, "IN_MEMORY_BYTES", 100)
    assert CLIPS.load(numbered) == numbered
    assert CLIPS.digest(CLIPS.load(numbered)) == known
    assert np.array_equal(CLIPS.prepare(CLIPS.load(numbered)), expected)


# Upright, in shape, over a background


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))])
def test_a_turned_clip_is_seen_upright(rotation, corner):
    """The mark says by how much to turn it against the clock; red is in the upper left as it was recorded."""
    frame = Image.new("RGB", (64, 32), (0, 0, 255))
    frame.paste((255, 0, 0), (0, 0, 32, 16))
    crop = ClipPreprocess(picture=ImagePreprocess(image_size=32, geometry="pad", pad_color=(0, 255, 0)))
    prepared = crop.prepare(clip_bytes([frame] * 4, rotation=rotation))[0]
    inside = prepared[8:24] if rotation in {0, 180} else prepared[:, 8:24]
    place = tuple(2 if side == 0 else -3 for side in corner)
    red, _, blue = (int(level) for level in inside[place])
    assert red > 150 > blue


def test_a_half_decoded_frame_is_as_good_as_a_whole_one():
    picture = Image.effect_noise((60, 40), 90).resize((640, 360), Image.Resampling.BICUBIC).convert("RGB")
    content = clip_bytes([picture] * 2)
    half = ClipPreprocess(picture=ImagePreprocess(image_size=64)).prepare(content)
    whole = ClipPreprocess(picture=ImagePreprocess(image_size=64, draft=False)).prepare(content)
    assert np.abs(half.astype(int) - whole).mean() < 3


@pytest.mark.parametrize("geometry", ["pad", "crop", "squash"])
def test_a_clip_of_one_frame_is_prepared_as_its_picture(geometry):
    """As near as a video's colours are to a picture's."""
    picture = Image.effect_noise((12, 9), 90).resize((120, 90), Image.Resampling.BICUBIC).convert("RGB")
    recipe = ImagePreprocess(image_size=48, geometry=geometry)
    (frame,) = ClipPreprocess(picture=recipe).prepare(clip_bytes([picture]))
    assert np.abs(frame.astype(int) - recipe.pixels(picture)).mean() < 3
    (still,) = ClipPreprocess(picture=recipe).prepare(picture)
    assert np.array_equal(still, recipe.pixels(picture))


# Animated pictures, arrays, stills


@pytest.mark.parametrize(("kind", "settings"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_animated_pictures_are_clips_and_need_no_ffmpeg(kind, settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    content = as_animation(counting(20), kind, **settings)
    assert find_clip_kind(content) == "animation"
    assert numbers_in(CLIPS.prepare(content)) == [int((part + 0.5) * 20 / 8) for part in range(8)]
    assert numbers_in(CLIPS.prepare(as_animation(counting(3), kind, **settings))) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "JPEG", "TIFF", "BMP"])
def test_a_picture_of_one_frame_is_no_clip(kind, as_bytes):
    content = as_bytes(Image.effect_noise((20, 10), 50).convert("RGB"), kind)
    assert find_clip_kind(content) is None
    assert CLIPS.prepare(content).shape == (1, 16, 16, 3) and CLIPS.size(content) == SIZE_OF_STILL


def test_pages_are_no_frames(as_bytes):
    pages = list(counting(3))
    content = as_bytes(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert find_clip_kind(content) is None and len(CLIPS.prepare(content)) == 1


def test_transparent_frames_lie_on_the_background():
    frames = [Image.new("RGBA", (10, 10), (255, 0, 0, 255 * (number % 2))) for number in range(4)]
    levels = CLIPS.prepare(as_animation(frames, "PNG"))[:, 0, 0].tolist()
    assert levels == [[255, 255, 255], [255, 0, 0]] * 2


def test_an_array_of_frames_is_a_clip():
    frames = np.stack([np.asarray(frame) for frame in counting(30)])
    assert find_clip_kind(frames) == "array"
    assert numbers_in(CLIPS.prepare(frames)) == [int((part + 0.5) * 30 / 8) for part in range(8)]
    assert CLIPS.digest(frames) != CLIPS.digest(frames[::-1])


# The recipe


def test_pictures_alone_stay_pictures(numbered, as_bytes):
    still = as_bytes(Image.new("RGB", (8, 8)))
    assert suit(PLAIN, [still, still]) is PLAIN
    assert suit(PLAIN, [still, numbered]) == ClipPreprocess(picture=PLAIN)
    assert suit(CLIPS, [still]) is CLIPS


def test_the_recipe_is_read_back_strictly():
    spec = CLIPS.as_json()
    assert preprocess_from_json(spec, lambda name: b"") == CLIPS
    assert CLIPS.fingerprint() == ClipPreprocess(picture=PLAIN).fingerprint() != PLAIN.fingerprint()
    for wrong in (spec | {"rules": 9}, spec | {"more": 1}, {**spec, "picture": {}}, spec | {"least_frames": 99}):
        with pytest.raises(ArtifactError):
            preprocess_from_json(wrong, lambda name: b"")
    for setting in ({"least_frames": 0}, {"most_frames": 2}, {"most_frames": 65}, {"seconds_a_frame": 0.0}):
        with pytest.raises(SettingError, match="frames"):
            ClipPreprocess(picture=PLAIN, **setting)


def test_a_batch_is_nan_where_a_clip_has_no_frame(numbered):
    batch = CLIPS.collate([CLIPS.prepare(numbered), CLIPS.prepare(clip_bytes(counting(3)))])
    assert batch.shape == (2, 8, 3, 16, 16) and batch.dtype == np.float32
    assert not np.isnan(batch[0]).any() and not np.isnan(batch[1, :3]).any() and np.isnan(batch[1, 3:]).all()
    assert CLIPS.size(numbered) == SIZE_OF_CLIP


def test_a_kept_clip_needs_no_ffmpeg_and_is_prepared_again(numbered, monkeypatch):
    kept = CLIPS.keep(numbered)
    monkeypatch.setitem(sys.modules, "av", None)
    prepared = CLIPS.prepare(kept)
    assert len(prepared) == 2 and CLIPS.compare(prepared, prepared) == ""
    assert "other pixels" in CLIPS.compare(prepared, 255 - prepared)


def test_a_page_shows_some_frames(numbered, as_bytes):
    shown = CLIPS.illustrate(numbered)["thumbnail"]
    still = CLIPS.illustrate(as_bytes(Image.new("RGB", (48, 32))))["thumbnail"]
    assert shown.startswith("data:image/jpeg;base64,") and len(shown) > len(still)


# What is refused


def refused(content, **kinds):
    with pytest.raises(UnreadableItemError) as error:
        CLIPS.prepare(content, name="odd.mp4")
    assert error.value.name == "odd.mp4" and error.value.mend
    return error.value


def test_a_clip_that_is_cut_off_is_refused(numbered, tmp_path):
    whole = numbered.read_bytes()
    assert refused(whole[: len(whole) // 2]).kind == "truncated"
    with av.open(str(numbered)) as source, av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    front = (tmp_path / "f.mp4").read_bytes()
    error = refused(front[: len(front) * 3 // 4])
    assert error.kind == "truncated" and "declares 6.0 seconds" in error.reason


def test_a_matroska_file_that_is_cut_off_is_refused():
    picture = Image.effect_noise((100, 100), 90).convert("RGB")
    whole = clip_bytes(wander(picture, 100), "matroska")
    assert len(CLIPS.prepare(whole)) == 8
    assert "is cut off" in refused(whole[: len(whole) // 2]).reason


def test_damage_inside_is_told(numbered):
    content = bytearray(numbered.read_bytes())
    inside = slice(content.index(b"mdat") + 900, content.index(b"moov") - 4, 7)
    content[inside] = b"\xff" * len(content[inside])
    assert "damaged" in refused(bytes(content)).reason


def test_a_missing_codec_is_named(numbered):
    error = refused(numbered.read_bytes().replace(b"avc1", b"xyz9"))
    assert error.kind == "unsupported" and "no decoder" in error.reason and "ffmpeg" in error.mend and "xyz9" in error.reason


def test_a_file_with_nothing_to_see_is_refused(tmp_path):
    assert "only audio" in refused(write_sound(tmp_path / "a.mp4").read_bytes()).reason
    assert refused(b"").kind == "empty"
    assert "is no picture" in refused(b"nothing of the kind").reason
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert refused(empty).kind == "empty"
    assert refused(np.zeros((0, 4, 4, 3), np.uint8)).kind == "empty"


@pytest.mark.parametrize("shape", [(4, 3, 8, 9), (4, 8, 9, 2), (4, 8, 9), (1, 4, 8, 9, 3), (9,)])
def test_an_array_of_another_shape_is_told_the_right_one(shape):
    error = refused(np.zeros(shape, np.uint8))
    assert error.kind == "unsupported"
    # What is wrong is all that predict shows of an item.
    assert error.reason == f"has the shape {shape}, where a clip has (frames, height, width, 3) in uint8"
    with pytest.raises(UnreadableItemError, match=r"where a picture has \(height, width, 3\) in uint8"):
        PLAIN.pixels(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.bool_, np.float32])
def test_arrays_that_are_said_to_be_read_are_read(channels, kind):
    assert CLIPS.prepare(np.zeros((4, 8, 9, channels), kind)).shape == (4, 16, 16, 3)


def test_too_many_pixels_are_refused_before_they_are_decoded(numbered):
    small = ClipPreprocess(picture=ImagePreprocess(max_pixels=1_000))
    for content in (numbered, as_animation(counting(4))):
        with pytest.raises(UnreadableItemError, match="pixels") as error:
            small.prepare(content)
        assert error.value.kind == "bomb"


def test_a_missing_package_is_named_with_its_command(numbered, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match="reading clips") as error:
        CLIPS.prepare(numbered)
    assert error.value.mend == install_command("video")


def test_a_preprocess_of_pictures_says_that_a_clip_is_one(numbered):
    with pytest.raises(UnreadableItemError, match="is a clip") as error:
        PLAIN.pixels(numbered)
    assert "ffmpeg" in error.value.mend


def test_containers_are_told_from_pictures(as_bytes):
    assert find_video_kind(as_bytes(Image.new("RGB", (9, 9)), "AVIF")) is None
    assert find_video_kind(as_bytes(Image.new("RGB", (9, 9)), "WEBP")) is None
    assert isinstance(find_video_kind(b"\x1a\x45\xdf\xa3"), VideoKind)
    for head in (b"", b"G", b"GIF89a", b"\xff\xd8\xff", b"RIFF\0\0\0\0WAVE", b"plain text"):
        assert find_video_kind(head) is None


@pytest.mark.parametrize("container", ["matroska", "webm", "mov"])
def test_titles_in_another_encoding_do_not_matter(container):
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as writer:
        writer.metadata["title"] = "Zug nach Koeln"
        video = writer.add_stream("libvpx" if container == "webm" else "mpeg4", rate=8)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 60 * number, np.uint8), format="rgb24")
            writer.mux(video.encode(frame))
        writer.mux(video.encode())
    content = stream.getvalue()
    assert b"Koeln" in content
    plain, changed = (
        ClipPreprocess(picture=ImagePreprocess(image_size=32)).prepare(each)
        for each in (content, content.replace(b"Koeln", b"K\xf6oln"))
    )
    np.testing.assert_array_equal(plain, changed)
