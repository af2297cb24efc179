"""Files of word vectors: every format gives the numbers that were written, and whatever is broken is named with its line."""

import gzip
import pickle
import re
import struct

import numpy as np
import pytest

from headstart.backbones import word_files
from headstart.backbones.catalog import find_source
from headstart.backbones.files import sha256_of
from headstart.backbones.word_files import clear_vectors, open_word_vectors
from headstart.errors import BackboneError
from word_tables import WORDS, lines_of, table, write

FORMS = ("glove", "word2vec text", "fasttext", "word2vec binary", "word2vec binary with lines")


def opened(path):
    return open_word_vectors(f"vectors:{path}", path, sha256_of(path))


@pytest.fixture(autouse=True)
def own_cache(empty_cache):
    return empty_cache


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_what_was_written(form, tmp_path):
    words = [*WORDS, "naïve", "東京", "no\u00a0break", "2005", "'", "line\u2028like"]
    found = opened(write(tmp_path / "table", form, words, table(words)))
    assert found.words == tuple(words) and found.repeated == 0
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, table(words))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_gensim_reads_the_same(form, tmp_path):
    models = pytest.importorskip("gensim.models")
    words = [*WORDS[:12], "naïve", "good", "2005"]  # 'good' twice
    vectors = np.random.default_rng(1).standard_normal((len(words), 11), np.float32)
    path = write(tmp_path / "table", form, words, vectors)
    binary, bare = "binary" in form, form == "glove"
    theirs = models.KeyedVectors.load_word2vec_format(str(path), binary=binary, no_header=bare)
    found = opened(path)
    # Where a word stands there twice, gensim leaves a place without a word behind the last.
    assert list(found.words) == [word for word in theirs.index_to_key if word is not None] and found.repeated == 1
    np.testing.assert_array_equal(found.vectors, np.stack([theirs[word] for word in found.words]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("binary", [False, True])
def test_what_gensim_writes_is_read(binary, tmp_path):
    models = pytest.importorskip("gensim.models")
    theirs = models.KeyedVectors(vector_size=7)
    vectors = np.random.default_rng(2).standard_normal((len(WORDS), 7), np.float32)
    theirs.add_vectors(WORDS, vectors)
    path = tmp_path / "table"
    theirs.save_word2vec_format(str(path), binary=binary)
    found = opened(path)
    assert found.words == tuple(WORDS)
    np.testing.assert_allclose(found.vectors, vectors, rtol=1e-6)


def test_a_large_binary_file_is_read_across_its_buffers(tmp_path):
    words = [f"word{number}" * (1 + number % 5) for number in range(9_000)]
    vectors = np.random.default_rng(0).standard_normal((len(words), 24), np.float32)
    found = opened(write(tmp_path / "table.bin", "word2vec binary", words, vectors))
    assert found.words == tuple(words)
    np.testing.assert_array_equal(found.vectors, vectors)


def test_a_compressed_file_is_read_and_a_damaged_one_refused(tmp_path):
    plain = write(tmp_path / "plain", "word2vec text")
    packed = tmp_path / "table.vec.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    np.testing.assert_array_equal(opened(packed).vectors, table())
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(BackboneError, match="compressed by gzip, and is damaged"):
        opened(packed)


def test_words_of_glove_may_hold_spaces(tmp_path):
    path = tmp_path / "table"
    path.write_text("the 1 2 3\n. . . 4 5 6\nat\tname@mail 7 8 9\n")
    found = opened(path)
    assert found.words == ("the", ". . .", "at name@mail")
    np.testing.assert_array_equal(found.vectors, np.arange(1, 10, dtype=np.float32).reshape(3, 3))


def test_a_file_is_read_once_and_mapped_from_then_on(tmp_path, empty_cache, monkeypatch):
    path = write(tmp_path / "table", "glove")
    first = opened(path)
    assert isinstance(first.vectors, np.memmap) and not first.vectors.flags.writeable
    monkeypatch.setattr(word_files, "read_entries", lambda _: pytest.fail("read again"))
    again = opened(path)
    assert again.words == first.words and isinstance(again.vectors, np.memmap)
    copied = tmp_path / "renamed"
    copied.write_bytes(path.read_bytes())
    assert opened(copied).words == first.words
    assert [entry.name for entry in (empty_cache / "vectors").iterdir()] == [
        entry.name for entry in (empty_cache / "vectors").iterdir() if "." not in entry.name
    ]
    assert clear_vectors() > 0 and not (empty_cache / "vectors").exists()


@pytest.mark.parametrize("lost", [word_files.TABLE, word_files.WORDS, word_files.FACTS])
def test_what_was_lost_of_the_cache_is_read_again(lost, tmp_path, empty_cache):
    path = write(tmp_path / "table", "glove")
    opened(path)
    (folder,) = (empty_cache / "vectors").iterdir()
    (folder / lost).write_bytes((folder / lost).read_bytes()[:-5])
    np.testing.assert_array_equal(opened(path).vectors, table())


def test_nothing_is_left_of_a_file_that_cannot_be_read(tmp_path, empty_cache):
    path = tmp_path / "table"
    path.write_text(lines_of(WORDS, table()) + "short 1 2\n")
    with pytest.raises(BackboneError, match="line 21 of"):
        opened(path)
    assert not list((empty_cache / "vectors").iterdir())


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("HEADSTART_CACHE", str(blocked))
    np.testing.assert_array_equal(opened(write(tmp_path / "table", "glove")).vectors, table())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"the 1 2 3\ngood 1 2\n", "line 2 of .* holds 2 numbers behind its word 'good'"),
        (b"the 1 2 3\ngood 1 2 3 4\n", "line 2 of .* holds 4 numbers behind its word 'good'"),
        (b"the 1 2 3\n\ngood 1 x 3\n", "line 3 of .* holds 'x' where a number should be"),
        (b"the 1 2 3\ngood 1 1_0 3\n", "line 2 of .* holds '1_0' where a number should be"),
        (b"the 1 2 3\ngood 1 nan 3\n", "line 2 of .* not finite, for the word 'good'"),
        (b"the 1 2 3\ngood 1 1e39 3\n", "line 2 of .* not finite, for the word 'good'"),
        (b"the 1 2 3\n\xff\xfe 1 2 3\n", "line 2 of .* begins with a word that is no UTF-8"),
        (b"once upon a time\n", "line 1 of .* is no word with its vector: 'once upon a time'"),
        (b"2 3\nthe 1 2 3\n", "line 2 of .* is the last, after 1 words of the 2 that line 1 promises"),
        (b"1 3\nthe 1 2 3\ngood 1 2 3\n", "line 3 of .* comes after the 1 words that line 1 promises"),
        (b"0 3\n", "line 1 of .* promises 0 words of 3 numbers"),
        (b"2 3\n", "line 1 of .* is the last, after 0 words"),
        (b"2 3\nthe " + struct.pack("<3f", 1, 2, 3) + b"good " + b"\0" * 11, "entry 2 of .* is cut short, of 2 that line 1"),
        (b"1 3\nthe " + struct.pack("<3f", 1, 2, np.nan), "entry 1 of .* not finite, for the word 'the'"),
        (b"1 3\n\xff " + struct.pack("<3f", 1, 2, 3), "entry 1 of .* begins with a word that is no UTF-8"),
        (b"1 3\n " + struct.pack("<3f", 1, 2, 3), "entry 1 of .* has no word"),
    ],
)
def test_a_broken_entry_is_named(content, told, tmp_path):
    path = tmp_path / "table.txt"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=told) as caught:
        opened(path)
    assert str(path) in caught.value.what and caught.value.expected and caught.value.mend


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 and so on", "is a zip archive. unpack it"),
        (struct.pack("<i", 793712314) + b"more", "is a model of fastText"),
        (b"\x93NUMPY\x01", "is an array of numpy"),
        (pickle.dumps([1]), "is a pickle"),
    ],
)
def test_other_files_are_refused_before_they_are_read(content, told, tmp_path):
    path = tmp_path / "table"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=told):
        find_source(f"vectors:{path}")


def test_a_folder_a_missing_file_and_a_wrong_number_are_refused(tmp_path):
    with pytest.raises(BackboneError, match=re.escape(f"{tmp_path} is a folder")):
        find_source(f"vectors:{tmp_path}")
    with pytest.raises(BackboneError, match="is not there"):
        find_source(f"vectors:{tmp_path / 'absent.txt'}")
    path = write(tmp_path / "table", "glove")
    with pytest.raises(BackboneError, match="asks for the first 'many' words"):
        find_source(f"vectors:{path}#many")
    assert find_source(f"vectors:{path}#5").most_words == 5
    odd = write(tmp_path / "table#1", "glove")
    assert find_source(f"vectors:{odd}").weights_path == odd
