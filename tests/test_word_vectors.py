"""Tables of word vectors as backbones: means by hand, compiled, frozen, tuned, saved; and what cannot be done with them."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

import headstart
from headstart.backbones import locate, open_backbone
from headstart.backbones.catalog import find_source, open_source
from headstart.backbones.parts import pooled_network, pooled_tail
from headstart.backbones.word_tokens import make_tokenizer, ranks_of_pieces
from headstart.backbones.word_vectors import MAX_TOKENS, MOST_WORDS
from headstart.backbones.word_weights import common_component, sif_weights, zipf_frequencies
from headstart.config import FitSettings
from headstart.errors import BackboneError, SettingError
from headstart.features.compile import compile_prefix
from headstart.features.export import MAX_RELATIVE_ERROR, export
from headstart.inference import open_session
from headstart.preprocess.recipe import preprocess_from_json
from headstart.select.rules import Circumstances, make_plan
from headstart.select.strategy import check_strategy, possible
from word_tables import WORDS, table, write

TEXTS = ("The film was very good", "a bad xyzzy book", "plot", "xyzzy qwert", " ".join(WORDS[:15]))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("vectors") / "table.vec", "fasttext")


@pytest.fixture(scope="module")
def backbone(path):
    return open_backbone(f"vectors:{path}")


@pytest.fixture(scope="module")
def labelled():
    """Texts that hold 'good' or 'bad', with their labels; one word in some has no vector."""
    random = np.random.default_rng(1)
    others = [*(word for word in WORDS if word not in {"good", "bad"}), "xyzzy"]
    pairs = []
    for number in range(160):
        words = [others[place] for place in random.integers(0, len(others), random.integers(3, 14))]
        words.insert(int(random.integers(0, len(words) + 1)), ("bad", "good")[number % 2])
        pairs.append((" ".join(words), ("no", "yes")[number % 2]))
    return list(dict(pairs).items())


def tokens_of(backbone, texts=TEXTS):
    preprocess = backbone.preprocess
    return torch.from_numpy(preprocess.collate([preprocess.prepare(text) for text in texts]))


def by_hand(text):
    """Mean and SIF mean of a text's words, by the paper's algorithm 1, with Zipf's frequencies and the table's direction."""
    vectors = table().astype(np.float64)
    shares = np.array([1 / (place + 1 + 2.7) for place in range(len(WORDS))])
    shares /= shares.sum()
    weights = 1e-3 / (1e-3 + shares)
    mean = sum(share * weight * row for share, weight, row in zip(shares, weights, vectors, strict=True))
    moment = 0.95 * np.outer(mean, mean)
    for share, weight, row in zip(shares, weights, vectors, strict=True):
        moment += 0.05 * share * weight**2 * np.outer(row, row)
    direction = np.linalg.svd(moment)[0][:, 0]
    places = [WORDS.index(word) for word in text.lower().split() if word in WORDS]
    if not places:
        return np.zeros(2 * vectors.shape[1])
    sif = np.mean([weights[place] * vectors[place] for place in places], axis=0)
    return np.concatenate([vectors[places].mean(0), sif - direction * (direction @ sif)])


# The numbers


def test_mean_and_sif_are_those_of_the_paper(backbone):
    assert backbone.blocks == ("embeddings", "sif")
    found = pooled_network(backbone, "")(tokens_of(backbone)).numpy()
    expected = np.stack([by_hand(text) for text in TEXTS])
    np.testing.assert_allclose(found, expected, atol=2e-3)  # the table is kept as float16
    np.testing.assert_array_equal(found[3], 0)  # not one word is known
    torch.testing.assert_close(backbone(tokens_of(backbone)), torch.from_numpy(found[:, 6:]))


def test_the_shared_direction_is_that_of_texts_drawn_by_the_frequencies():
    vectors = table(["w"] * 300, width=8, seed=4) + np.array([1, 0, 0, 0, 0, 0, 0, 0], np.float32)
    frequencies = zipf_frequencies(np.arange(300))
    weights = sif_weights(frequencies)
    random = np.random.default_rng(0)
    drawn = random.choice(300, (4_000, 20), p=frequencies)
    texts = (vectors[drawn] * weights[drawn][..., None]).mean(1)
    first = np.linalg.svd(texts, full_matrices=False)[2][0]
    found = common_component(vectors, frequencies, weights)
    assert abs(first @ found) > 0.99
    assert frequencies.sum() == pytest.approx(1) and (np.diff(weights) > 0).all()


def test_long_texts_are_averaged_over_their_windows(backbone):
    from dataclasses import replace

    small = replace(backbone, preprocess=replace(backbone.preprocess, max_tokens=8, fitting="windows"))
    text = " ".join(WORDS)
    found = pooled_network(small, "")(tokens_of(small, [text, "good plot"])).numpy()
    np.testing.assert_allclose(found, np.stack([by_hand(text), by_hand("good plot")]), atol=2e-3)
    tail = pooled_tail(small, None)
    again = tail(tokens_of(small, [text, "good plot"]), torch.empty(2, 0))
    np.testing.assert_allclose(again.detach().numpy(), found, atol=1e-5)


def test_padding_and_company_do_not_change_features(backbone):
    network = pooled_network(backbone, "")
    together = network(tokens_of(backbone))
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(network(tokens_of(backbone, [text])), together[row : row + 1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["wordllama", "file"])
def test_the_compiled_table_gives_what_torch_gives(name, path, tmp_path):
    opened = open_backbone(f"vectors:{path}" if name == "file" else name)
    spec = export(opened, tmp_path / "prefix.onnx")
    assert not spec.why_torch and spec.relative_error <= MAX_RELATIVE_ERROR
    tokens = tokens_of(opened)
    found = open_session(tmp_path / "prefix.onnx", num_threads=1).run(None, {"tokens": tokens.numpy()})[0]
    np.testing.assert_allclose(found, pooled_network(opened, "")(tokens).numpy(), atol=1e-5)
    size = opened.info.num_parameters
    # The graph holds the table once, two bytes a number.
    assert 2 * size < (tmp_path / "prefix.onnx").stat().st_size < 2 * size + 60_000 + 4 * size // opened.info.width * 2


def test_wordllama_is_the_mean_of_its_tokens():
    from safetensors.numpy import load_file

    source = locate("wordllama", modality="text")
    assert source.name == "wordllama-256" and source.library == "tokenizers"
    opened = open_source(source)
    assert (opened.info.width, opened.info.num_parameters) == (256, 32_000 * 256)
    vectors = load_file(source.weights_path)["embedding.weight"].astype(np.float32)
    tokenizer = Tokenizer.from_file(str(source.weights_path.parent.parent / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    texts = ["Hello wonderful world, don't", "中文 and 𐍈"]
    found = pooled_network(opened, "")(tokens_of(opened, texts))[:, :256].numpy()
    expected = np.stack([vectors[tokenizer.encode(text, add_special_tokens=False).ids].mean(0) for text in texts])
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_pieces_are_ranked_with_frequent_ones_first():
    tokenizer = open_backbone("wordllama").preprocess.opened
    ranks = ranks_of_pieces(tokenizer)
    rank = {piece: ranks[tokenizer.token_to_id(piece)] for piece in ("▁the", ",", "▁wonderful", "<0x0A>", "<s>")}
    assert max(rank["▁the"], rank[","]) < 100 < rank["▁wonderful"] < rank["<0x0A>"] == rank["<s>"] == 31_999


# From text to words


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["don't"], ["The", "film", "don't", ",", "it's", "<unk>", "!"]),
        (["n't", "do"], ["The", "film", "do", "n't", ",", "<unk>", "'s", "<unk>", "!"]),
        ([], ["The", "film", "<unk>", "<unk>", "<unk>", ",", "<unk>", "<unk>", "s", "<unk>", "!"]),
    ],
)
def test_contractions_are_taken_apart_as_the_vocabulary_has_them(more, expected):
    words = ["The", "film", "Good", ",", "!", "it's", "'s", "s", *more]
    tokenizer = Tokenizer.from_str(make_tokenizer(words))
    assert tokenizer.encode("The film don't, it's Xyzzy!").tokens == expected


def test_small_letters_are_for_vocabularies_without_capitals(backbone):
    assert backbone.preprocess.opened.encode("THE FILM").tokens == ["the", "film"]
    cased = Tokenizer.from_str(make_tokenizer(["the", "The"]))
    assert cased.encode("The the THE").tokens == ["The", "the", "<unk>"]


def test_a_vector_for_unknown_words_is_left_out(tmp_path):
    words = ["<unk>", "good", "bad"]
    opened = open_backbone(f"vectors:{write(tmp_path / 'table', 'glove', words, table(words))}")
    found = pooled_network(opened, "")(tokens_of(opened, ["good xyzzy", "good"]))
    torch.testing.assert_close(found[0], found[1])


def test_only_the_first_words_are_used_where_that_is_asked(path):
    opened = open_backbone(f"vectors:{path}#3")
    assert opened.preprocess.opened.encode("the a film book").tokens == ["the", "a", "film", "<unk>"]
    assert "3 of 20 words of table.vec" in opened.info.source
    assert find_source(f"vectors:{path}#3").identity != find_source(f"vectors:{path}").identity
    assert MOST_WORDS == 200_000 and opened.preprocess.max_tokens == MAX_TOKENS


def test_the_share_of_unknown_words_is_always_told(backbone):
    preprocess = backbone.preprocess
    (told,) = preprocess.notice({"1": "a good film", "2": "the xyzzy was a very bad book"})
    assert (told.kind, told.severity) == ("unknown_words", "info")
    assert told.message.startswith("10.0% of the words of 2 texts")
    (told,) = preprocess.notice({"1": "ein guter Film", "2": "das schlechte Buch", "3": "a film"})
    assert told.severity == "warning" and told.items == ("2",)
    assert "62.5% of the words" in told.message and "1 of the texts have no other words" in told.message
    again = preprocess_from_json(preprocess.as_json(), lambda name: preprocess.assets[name])
    assert again == preprocess and again.unknown_left_out


# Tuning


def test_only_vectors_of_words_that_occur_train(path):
    opened = open_backbone(f"vectors:{path}")
    tokens = tokens_of(opened, ["the film was good", "a bad xyzzy"])
    tail = pooled_tail(opened, None)
    before = tail(tokens, torch.empty(2, 0)).detach()
    tail.train_tokens(tokens.numpy().ravel())
    torch.testing.assert_close(tail(tokens, torch.empty(2, 0)).detach(), before)
    (rows,) = [parameter for parameter in tail.parameters() if parameter.requires_grad]
    assert rows.shape == (7, 6) and rows.dtype == torch.float32  # six words, and the one that stands for the unknown
    tail(tokens, torch.empty(2, 0)).square().sum().backward()
    seen = tokens.unique()[1:].tolist()
    assert (rows.grad.abs().sum(1) > 0).tolist() == [place < len(WORDS) for place in seen]
    with torch.no_grad():
        rows += 1
    others = tokens_of(opened, ["slow quick story"])
    torch.testing.assert_close(tail(others, torch.empty(1, 0)), pooled_network(opened, "")(others))
    settled = tail.settled()
    torch.testing.assert_close(settled(tokens, torch.empty(2, 0)), tail(tokens, torch.empty(2, 0)), atol=4e-3, rtol=0)
    old, new = opened.encoder.network.state_dict(), settled.network.network.network.state_dict()
    assert old.keys() == new.keys()
    assert (old["table"] != new["table"]).any(1).nonzero()[:, 0].tolist() == seen
    assert tail.settled() is not tail and pooled_tail(opened, None).settled() is not None


def test_rates_are_those_of_a_table():
    facts = Circumstances(num_items=300, num_classes=2, device="cpu", pretrained=True, transformer=False, modality="text")
    plan = make_plan("full", facts, FitSettings())
    assert (plan.head_rate, plan.backbone_rate, plan.weight_decay) == (1e-4, 1e-2, 0)


def test_strategies_that_a_table_has_no_blocks_for(backbone):
    assert possible(("full", "last:2", "last:1"), backbone.info) == ("full",)
    assert check_strategy("last:1", backbone.info) == "full"
    with pytest.raises(SettingError, match="has 1 block with weights"):
        check_strategy("last:2", backbone.info)
    with pytest.raises(BackboneError, match="cannot be cut: its one block with weights is the table"):
        backbone.cut("embeddings")


def test_pictures_and_lora_are_refused(backbone, labelled, compiling_here):
    with pytest.raises(BackboneError, match="takes text items, and these are image items"):
        locate(backbone.info.name, modality="image")
    with pytest.raises(SettingError, match="LoRA adapts linear layers"):
        headstart.fit(labelled, modality="text", backbone=backbone.info.name, strategy="lora", classical="none", epochs=1)


# From the front door


@pytest.fixture(scope="module")
def fitted(labelled, path, tmp_path_factory, compiling_here):
    """`fitted(strategy)` gives the folder of a model of the labelled texts; each is made once."""
    made = {}

    def fit_one(strategy, **how):
        if strategy not in made:
            out = tmp_path_factory.mktemp("fitted") / f"{strategy}.hs"
            options = {"modality": "text", "backbone": f"vectors:{path}", "classical": "none"} | how
            headstart.fit(labelled, out=out, strategy=strategy, **options)
            made[strategy] = out
        return made[strategy]

    return fit_one


def test_frozen_vectors_are_fitted_and_the_share_of_unknown_words_is_reported(fitted):
    out = fitted("extract")
    report = json.loads((out / "report.json").read_text())
    told = [finding for finding in report["data"]["findings"] if finding["kind"] == "unknown_words"]
    assert len(told) == 1 and "of the words of" in told[0]["message"]
    assert report["summary"]["test"]["accuracy"] > 0.8
    assert "have no vector and are left out" in (out / "report.html").read_text()


def test_predicting_loads_no_torch_and_needs_no_file_of_vectors(fitted, run_python, path):
    code = """
import sys, headstart
model = headstart.load(sys.argv[1])
print([each.label for each in model.predict(["the film was good", "a bad story"])])
assert not {"torch", "transformers", "gensim"} & set(sys.modules), "training code was loaded"
"""
    moved = path.rename(path.with_name("away.vec"))
    try:
        done = run_python(code, fitted("extract"))
    finally:
        moved.rename(path)
    assert (done.returncode, done.stdout) == (0, "['yes', 'no']\n"), done.stderr


def test_tuned_vectors_are_saved_and_are_a_source(fitted, backbone):
    out = fitted("last:1", epochs=2)
    report = json.loads((out / "report.json").read_text())
    assert report["summary"]["strategy"] == "full" and (out / "tail.safetensors").is_file()
    tuned = open_source(find_source(f"artifact:{out}"))
    assert tuned.info.tuned and tuned.info.base == backbone.info.name
    before, own = backbone.encoder.network.table, tuned.encoder.network.table
    changed = (before != own).any(1)
    assert changed[WORDS.index("good")] and changed[WORDS.index("bad")]
    text = "the plot was good"
    prediction = headstart.load(out).predict([text])[0]
    prefix = compile_prefix(find_source(f"artifact:{out}")).wait()
    np.testing.assert_allclose(prefix(tokens_of(tuned, [text]).numpy())[0, 6:], tuned(tokens_of(tuned, [text]))[0], atol=1e-4)
    assert prediction.label == "yes"


def test_a_small_network_with_hidden_layers_on_tuned_vectors(fitted):
    out = fitted("full", head="mlp", epochs=2)
    report = json.loads((out / "report.json").read_text())
    assert report["summary"]["strategy"] == "full"
    assert headstart.load(out).predict(["a good plot"])[0].label == "yes"


def test_an_untrained_table_has_the_same_words_and_other_vectors(path, backbone):
    untrained = open_backbone(f"random:vectors:{path}")
    assert untrained.preprocess == backbone.preprocess and untrained.info.num_parameters == backbone.info.num_parameters
    assert not torch.equal(untrained.encoder.network.table, backbone.encoder.network.table)
    assert untrained.info.source.startswith("untrained: random vectors")
    assert find_source("random:wordllama").kind == "random"
