"""Files of word vectors, small and made up, in every format."""

import struct

import numpy as np

WORDS = "the a film book was is very good bad fine dull bright slow quick story plot end of and not".split()


def table(words=WORDS, width=6, seed=0):
    """Vectors of some words: (V, D) float32, of few decimals, so that text holds them exactly."""
    return (np.random.default_rng(seed).integers(-4000, 4000, (len(words), width)) / 1024).astype(np.float32)


def lines_of(words, vectors):
    return "".join(f"{word} {' '.join(f'{value:.10g}' for value in row)}\n" for word, row in zip(words, vectors, strict=True))


def write(path, form, words=WORDS, vectors=None):
    """Write a table in one of the formats, and give its path."""
    vectors = table(words) if vectors is None else vectors
    header = f"{len(words)} {vectors.shape[1]}\n"
    match form:
        case "glove":
            path.write_text(lines_of(words, vectors), encoding="utf-8")
        case "word2vec text":
            path.write_text(header + lines_of(words, vectors), encoding="utf-8")
        case "fasttext":  # with a space behind the last number
            path.write_text(header + lines_of(words, vectors).replace("\n", " \n"), encoding="utf-8")
        case "word2vec binary" | "word2vec binary with lines":
            end = b"\n" if form.endswith("lines") else b""
            packed = (struct.pack(f"<{len(row)}f", *row) + end for row in vectors)
            rows = (word.encode() + b" " + numbers for word, numbers in zip(words, packed, strict=True))
            path.write_bytes(header.encode() + b"".join(rows))
        case _:
            raise ValueError(form)
    return path
