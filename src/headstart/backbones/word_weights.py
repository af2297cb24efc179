"""What smooth inverse frequency (SIF) makes of a table of vectors.

A text's vector is the mean of its words' vectors, each times a / (a + p(word)), less its part along the direction that all
texts share (Arora, Liang and Ma 2017, "A simple but tough-to-beat baseline for sentence embeddings"). Both frequencies and
direction are properties of the table here, not learned from texts.
"""

from __future__ import annotations

import numpy as np

SMOOTHING = 1e-3
"""a, as in the paper's section 4.1."""
OFFSET = 2.7
"""Of ranks in Zipf's law as Mandelbrot put it: p is proportional to 1 / (rank + offset) (Piantadosi 2014, section 2)."""
TYPICAL_WORDS = 20
"""Of a text, for the direction that texts share."""
_ROWS_AT_ONCE = 16_384


def zipf_frequencies(ranks: np.ndarray) -> np.ndarray:
    """How frequent words are, by Zipf's law.

    Args:
        ranks: (V,) place of each word from 0, the most frequent first; words may share one.

    Returns:
        (V,) float64, > 0, of sum 1.
    """
    expected = 1 / (ranks + 1 + OFFSET)
    return expected / expected.sum()


def sif_weights(frequencies: np.ndarray) -> np.ndarray:
    """The weight of each word, a / (a + p): (V,) float64 in (0, 1)."""
    return SMOOTHING / (SMOOTHING + frequencies)


def common_component(vectors: np.ndarray, frequencies: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The direction that texts' weighted means share: the first of their second moment, as in the paper's algorithm 1.

    The moment is that of texts of 20 words drawn independently by their frequencies, which needs no texts:
    M = 1/n Σ p w² v vᵀ + (1 - 1/n) m mᵀ, with m = Σ p w v.

    Args:
        vectors: (V, D).
        frequencies: (V,) p, of sum 1.
        weights: (V,) w.

    Returns:
        (D,) float64 of length 1.
    """
    width = vectors.shape[1]
    mean, moment = np.zeros(width), np.zeros((width, width))
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        rows = vectors[part].astype(np.float64)
        drawn = frequencies[part] * weights[part]
        mean += drawn @ rows
        moment += (rows * (drawn * weights[part])[:, None]).T @ rows
    moment = moment / TYPICAL_WORDS + (1 - 1 / TYPICAL_WORDS) * np.outer(mean, mean)
    direction = np.linalg.eigh(moment)[1][:, -1]
    # One of two signs, always the same.
    return direction * (np.sign(direction[np.abs(direction).argmax()]) or 1.0)


def root_mean_square(vectors: np.ndarray) -> float:
    """Of all numbers of a table (V, D); 1 where all are 0."""
    return float(np.sqrt(np.square(vectors, dtype=np.float64).mean())) or 1.0
