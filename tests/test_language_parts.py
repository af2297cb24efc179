"""The parts of a language model's training, each against an independent way: the cut, packing, losses, the corpus."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from headstart.backbones.catalog import find_source
from headstart.backbones.causal import open_causal
from headstart.errors import DataError
from headstart.language.corpus import Corpus, Document, read_corpus
from headstart.language.judging import Losses, compare, measure
from headstart.language.network import WritingNetwork, token_losses
from headstart.language.packing import NO_TARGET, pack
from headstart.language.parts import part
from headstart.tuning.losses import make_loss, scale_of
from language_models import save_language_model, sentences


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    found = {}

    def give(family):
        if family not in found:
            found[family] = open_causal(find_source(f"file:{save_language_model(folder / family, family)}"))
        return found[family]

    return give


FAMILIES = ("gpt2", "llama", "qwen2", "qwen3")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tail_behind_its_prefix_is_the_whole_model(opened, family):
    backbone = opened(family)
    tokens = torch.randint(0, 200, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = backbone.network(input_ids=tokens).logits
        for first in range(backbone.num_layers):
            state = backbone.run_to(first, tokens)
            hidden = backbone.tail(first)(state, torch.ones_like(tokens, dtype=torch.bool))[-1]
            assert (backbone.vocabulary(hidden) - scores).abs().max() < 1e-4, first


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_tail_its_layers_and_the_last_normalisation_train(opened, family):
    backbone = opened(family)
    network = WritingNetwork(backbone.tail(1), backbone.vocabulary, layers=backbone.layers)
    blocks = network.blocks()
    own = dict(backbone.base.named_parameters())
    names = [name.removeprefix("body.encoder.network.") for block in blocks for name in block]
    assert len(blocks) == 3 and len(set(names)) == len(names)
    wanted = {name for name in own if name.startswith((f"{backbone.layers}.1.", f"{backbone.layers}.2."))}
    assert set(names) == wanted | set(backbone.behind)
    assert len(backbone.behind) == (2 if family == "gpt2" else 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_token_losses_and_gradients_are_those_of_the_plain_cross_entropy(opened, family):
    backbone = opened(family)
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(3, 200, 32, generator=draw, requires_grad=True)
    following = torch.randint(0, 200, (3, 200), generator=draw)
    following[0, :7] = NO_TARGET
    weights = torch.rand(3, 200, generator=draw)
    losses = token_losses(hidden, backbone.vocabulary, following)
    (ours,) = torch.autograd.grad((losses * weights).sum(), hidden)
    plain = functional.cross_entropy(backbone.vocabulary(hidden).flatten(0, 1), following.flatten(), reduction="none")
    (theirs,) = torch.autograd.grad((plain.view(3, 200) * weights).sum(), hidden)
    torch.testing.assert_close(losses, plain.view(3, 200), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_mean_over_the_tokens_that_count(opened):
    counted = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], np.float32)
    losses = torch.tensor([[1.0, 3.0, 50.0, 50.0], [2.0, 2.0, 2.0, 4.0]])
    found = make_loss("generate", scale=scale_of("generate", counted))(losses, torch.from_numpy(counted))
    assert float(found.mean()) == pytest.approx((1 + 3 + 2 + 2 + 2 + 4) / 6)


def test_measured_losses_are_those_of_transformers(opened):
    backbone = opened("qwen2")
    documents = [Document(id=str(n), text=text) for n, text in enumerate(sentences(30))]
    found = measure(backbone, pack(documents, backbone.tokenizer, 32))
    assert found.unit == "documents" and len(found.nats) == 30
    blocks = pack(documents, backbone.tokenizer, 32)
    nats = 0.0
    for read, following in zip(blocks.read, blocks.following, strict=True):
        with torch.no_grad():
            scores = backbone.network(input_ids=torch.from_numpy(read)[None]).logits[0]
        nats += float(functional.cross_entropy(scores, torch.from_numpy(following), reduction="sum"))
    assert found.nats.sum() == pytest.approx(nats, rel=1e-5)
    assert found.tokens.sum() == blocks.num_tokens


class Letters:
    """A tokenizer with a token a character."""

    eos_token_id, bos_token_id = 0, None

    class backend_tokenizer:  # noqa: N801 - as transformers calls it
        @staticmethod
        def encode(text, add_special_tokens):
            return SimpleNamespace(ids=[ord(character) for character in text])


texts = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(texts, st.one_of(st.just(""), texts)), min_size=1, max_size=12),
    context=st.integers(4, 48),
)
def test_packing_loses_no_token_and_doubles_none(rows, context):
    documents = [Document(id=str(n), text=text, prompt=prompt) for n, (text, prompt) in enumerate(rows)]
    blocks = pack(documents, Letters, context)
    read, following, owner = (part.ravel() for part in (blocks.read, blocks.following, blocks.owner))
    assert blocks.read.shape[1] == context
    for number, document in enumerate(documents):
        own = owner == number
        characters = [ord(character) for character in document.prompt + document.text]
        assert read[own].tolist() == [0, *characters]
        learned = [*map(ord, document.text), 0]
        assert following[own].tolist() == [NO_TARGET] * len(document.prompt) + learned
        if document.prompt and own.sum() <= context:
            assert len({place // context for place in np.flatnonzero(own)}) == 1
    assert blocks.num_tokens == sum(len(text) + 1 for text, _ in rows)
    assert (following[owner < 0] == NO_TARGET).all()
    assert blocks.num_bytes == sum(len(text) for text, _ in rows)


def test_parts_are_whole_documents_by_seed_with_copies_on_one_side():
    texts = [f"{number} {text} {number * 7919}" for number, text in enumerate(sentences(200))]
    documents = [Document(id=str(n), text=text) for n, text in enumerate([*texts, *texts[:40]])]
    corpus = Corpus(documents=tuple(documents), source="here")
    found, again, other = (part(corpus, seed=seed) for seed in (0, 0, 1))
    sides = [found.train, found.watch, found.valid, found.test]
    assert sorted(int(document.id) for side in sides for document in side) == list(range(240))
    assert found == again and found.test != other.test
    seen = [{document.text for document in side} for side in sides]
    assert sum(map(len, seen)) == 200
    assert 0.05 < sum(len(document.text) for document in found.test) / sum(map(lambda d: len(d.text), documents)) < 0.15
    assert found.findings[0].kind == "duplicate" and len(found.findings[0].items) >= 80


def test_one_long_text_is_cut_in_its_own_order_and_nothing_is_lost():
    text = "\n".join(sentences(500))
    found = part(Corpus(documents=(Document(id="a", text=text),), source="here"), seed=0)
    pieces = [side[0].text for side in (found.train, found.watch, found.valid, found.test)]
    assert "".join(pieces) == text
    assert all(piece.endswith("\n") for piece in pieces[:-1])
    assert [side[0].goes_on for side in (found.train, found.watch, found.valid, found.test)] == [True, True, True, False]


def test_a_corpus_is_read_from_files_folders_rows_and_memory(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.txt").write_text("two")
    (tmp_path / "1.md").write_text("one")
    (tmp_path / "empty.txt").write_text(" \n")
    found = read_corpus(tmp_path)
    assert [document.text for document in found.documents] == ["one", "two"]
    assert found.findings[0].items == ("empty.txt",)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "x"}\n\n{"prompt": "p", "completion": "c"}\n')
    found = read_corpus(rows)
    assert found.paired and [(d.prompt, d.text) for d in found.documents] == [("", "x"), ("p", "c")]
    assert read_corpus(["a", {"text": "b"}]).documents[1].text == "b"


def test_what_is_no_corpus_is_told(tmp_path):
    with pytest.raises(DataError, match="nothing at"):
        read_corpus(tmp_path / "missing.txt")
    with pytest.raises(DataError, match="holds no text file"):
        read_corpus(tmp_path)
    (tmp_path / "latin.txt").write_bytes("fine\ncaf\u00e9".encode("latin-1"))
    with pytest.raises(DataError, match="line 2 is no UTF-8"):
        read_corpus(tmp_path / "latin.txt")
    rows = [json.dumps({"text": "x"}), "{", json.dumps({"label": "x"}), json.dumps({"prompt": "p"})]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match="3 of 4 rows hold no text to learn from: line 2, 3, 4"):
        read_corpus(tmp_path / "rows.jsonl")
    (tmp_path / "table.csv").write_text("text\nx\n")
    with pytest.raises(DataError, match="no text file and no table of texts"):
        read_corpus(tmp_path / "table.csv")
    pairs = Corpus(documents=(Document(id="1", text="c", prompt="p"),), source="here")
    with pytest.raises(DataError, match="holds 1 pairs"):
        part(pairs, seed=0)


def test_the_gate_wants_a_difference_beyond_doubt_on_enough_units():
    draw = np.random.default_rng(0)
    tokens = np.full(40, 64.0)

    def losses(nats):
        return Losses(nats=nats, tokens=tokens[: len(nats)], num_bytes=1000, unit="stretches")

    hard = 100 + 60 * draw.random(40)
    assert compare(losses(hard - 1 - draw.random(40)), losses(hard), 0).passed
    assert not compare(losses(hard + draw.normal(0, 5, 40)), losses(hard), 0).passed
    assert not compare(losses(hard[:4] - 10), losses(hard[:4]), 0).passed
