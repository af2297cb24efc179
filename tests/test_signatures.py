import io
import random

import numpy as np
import pytest
from PIL import Image

from headstart.data.modality import modality_of_value
from headstart.preprocess.clip_items import find_clip_kind
from headstart.preprocess.containers import find_video_kind
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.sound_items import open_sound
from headstart.signatures import HEAD_BYTES, identify


def ogg(codec):
    return b"OggS" + bytes(22) + b"\x01" + bytes([len(codec)]) + codec


def box(brand):
    return b"\0\0\0\x18ftyp" + brand + bytes(4) + brand + b"isom" + bytes(40)


KINDS = [
    (b"\xff\xe3\x18\xc4", "audio"),
    (b"\xff\xe2\x18\xc4", "audio"),
    (b"\xff\xfa\x90\x64", "audio"),
    (b"\xff\xfb\x90\x64", "audio"),
    (b"\xff\xf3\x40\xc4", "audio"),
    (b"\xff\xf1\x50\x80", "audio"),
    (b"\xff\xf9\x50\x80", "audio"),
    (b"#!AMR\n", "audio"),
    (b"#!AMR-WB\n", "audio"),
    (box(b"M4A "), "audio"),
    (box(b"M4B "), "audio"),
    (ogg(b"\x01vorbis"), "audio"),
    (ogg(b"OpusHead"), "audio"),
    (ogg(b"\x7fFLAC"), "audio"),
    (ogg(b"Speex   "), "audio"),
    (b"RIFF\0\0\0\0WAVE", "audio"),
    (ogg(b"\x80theora"), "video"),
    (ogg(b"fishead\0") + ogg(b"\x80theora"), "video"),
    (ogg(b"\x01vorbis") + ogg(b"\x80theora"), "video"),
    (box(b"isom"), "video"),
    (b"RIFF\0\0\0\0AVI ", "video"),
    ((b"\x47" + bytes(187)) * 6, "video"),
    ((bytes(4) + b"\x47" + bytes(187)) * 6, "video"),
    (box(b"avif"), "image"),
    (box(b"heic"), "image"),
    (b"RIFF\0\0\0\0WEBPVP8 ", "image"),
    (b"\xff\xd8\xff\xe0", "image"),
    (b"PK\x03\x04", "archive"),
    (bytes(257).replace(b"\0", b"a") + b"ustar\0", "archive"),
    (b"PAR1", "table"),
    (b"Hello, world", "text"),
    ("Gr\u00fc\u00dfe".encode(), "text"),
    (b"\xff\xfeA\0B\0", "text"),
    (b"%PDF-1.7", "document"),
    (b"<svg xmlns=''/>", "document"),
]


@pytest.mark.parametrize(("head", "kind"), KINDS)
def test_every_reader_has_the_same_kind_for_the_same_bytes(head, kind):
    found = identify(head)
    assert found is not None and found.kind == kind
    assert (find_video_kind(head) is not None) == (kind == "video")
    assert (modality_of_value(head) == "audio") == (kind == "audio")


@pytest.mark.parametrize(
    "head", [b"", b"\xff\xeb\x90\x64", b"\xff\xfb\xf0\x64", b"\xff\xfb\x9c\x64", b"\xff\xf1\x7c\x80", b"\0\1\2"]
)
def test_reserved_values_of_a_frame_header_are_no_sound(head):
    assert identify(head) is None


def test_random_palettes_of_gif_are_pictures():
    draw = random.Random(0)
    for _ in range(3_000):
        head = bytearray(b"GIF89a" + draw.randbytes(HEAD_BYTES - 6))
        head[188], head[376], head[192 + 4], head[564] = 0x47, 0x47, 0x47, 0x47
        found = identify(bytes(head))
        assert found is not None and found.kind == "image"
        assert find_clip_kind(bytes(head)) in (None, "animation")


def test_random_bytes_are_hardly_ever_a_stream():
    draw = random.Random(1)
    heads = [b"\x47" + draw.randbytes(HEAD_BYTES - 1) for _ in range(3_000)]
    assert not any(find_video_kind(head[:188] + b"\x47" + head[189:]) for head in heads)


def test_a_gif_whose_byte_188_is_a_sync_byte_is_a_still_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    image = Image.fromarray(pixels).convert("P")
    file = io.BytesIO()
    image.save(file, "GIF")
    content = bytearray(file.getvalue())
    content[188] = 0x47
    assert find_clip_kind(bytes(content)) is None


def wave(samples, *, before=b"", declared=None, width=2):
    data = bytes(samples * width)
    form = b"fmt " + (16).to_bytes(4, "little") + b"\x01\0\x01\0" + (8000).to_bytes(4, "little")
    form += (8000 * width).to_bytes(4, "little") + bytes([width, 0, 8 * width, 0])
    body = b"WAVE" + form + before + b"data" + (len(data) if declared is None else declared).to_bytes(4, "little") + data
    return b"RIFF" + len(body).to_bytes(4, "little") + body


LIST = b"LIST" + (100_000).to_bytes(4, "little") + bytes(100_000)


@pytest.mark.parametrize("before", [b"", LIST, LIST * 3])
def test_a_wave_is_cut_or_whole_whatever_precedes_its_data(before):
    content = wave(1000, before=before)
    with open_sound(content) as sound:
        assert sound.num_frames == 1000
    with pytest.raises(UnreadableItemError, match="is cut off"), open_sound(content[:-400]):
        pass


@pytest.mark.parametrize("before", [b"", LIST])
@pytest.mark.parametrize("samples", [1000, 1001])
def test_a_wave_that_declares_one_byte_too_many_is_whole(before, samples):
    with open_sound(wave(samples, before=before, declared=2 * samples + 1)) as sound:
        assert sound.num_frames == samples
    with pytest.raises(UnreadableItemError, match="is cut off"), open_sound(wave(samples, declared=2 * samples + 2)):
        pass
