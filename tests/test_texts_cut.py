"""Text encoders, whole and cut: the parts together give what the whole gives, compiled or not, whatever the padding."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from tokenizers import models

from headstart.backbones import open_backbone
from headstart.backbones.parts import pooled_network, pooled_tail
from headstart.errors import BackboneError
from headstart.features.export import export
from headstart.features.lengths import PaddedPrefix, longest_length
from headstart.features.prefix import STATE
from headstart.preprocess import batches
from headstart.preprocess.text import PADDING
from headstart.records import Sample
from headstart.tuning.network import parameters_by_block
from text_models import WORDS, save_encoder

FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "mpnet", "deberta-v2", "modernbert")
TEXTS = ("good", "the film was very good and not slow", "a bad book", " ".join(WORDS[:15]))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """`opened(family)` gives a tiny encoder of a family, opened by its folder; each is made once."""
    made = {}

    def open_one(family, **how):
        key = (family, *how.items())
        if key not in made:
            folder = save_encoder(tmp_path_factory.mktemp(family) / "model", family, **how)
            made[key] = open_backbone(f"file:{folder}")
        return made[key]

    return open_one


def tokens_of(backbone, texts=TEXTS):
    preprocess = backbone.preprocess
    return torch.from_numpy(preprocess.collate([preprocess.prepare(text) for text in texts]))


@pytest.mark.parametrize("family", FAMILIES)
def test_prefix_and_tail_give_what_the_whole_gives_at_every_block(opened, family):
    backbone = opened(family, max_tokens=20)
    tokens = tokens_of(backbone)
    assert backbone.blocks == ("embeddings", "layers.0", "layers.1", "layers.2", "pool")
    whole = pooled_network(backbone, "")(tokens)
    for block in backbone.blocks[:-1]:
        prefix, tail = backbone.cut(block)
        torch.testing.assert_close(tail.eval()(prefix(tokens)), backbone(tokens), atol=1e-5, rtol=0)
        pooled = pooled_network(backbone, block)
        given, rows = pooled(tokens), len(tokens)
        behind = tokens.shape[1] * (backbone.info.width + 1)
        state, before = given[:, :behind].reshape(rows, tokens.shape[1], -1), given[:, behind:]
        torch.testing.assert_close(pooled_tail(backbone, block).eval()(state, before), whole, atol=1e-5, rtol=0)
    nothing = whole.new_empty(len(tokens), 0)
    torch.testing.assert_close(pooled_tail(backbone, None).eval()(tokens, nothing), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_company_do_not_change_features(opened, family):
    backbone = opened(family, max_tokens=20)
    network = pooled_network(backbone, "")
    together = network(tokens_of(backbone))
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(network(tokens_of(backbone, [text])), together[row : row + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cut", ["", "layers.1"])
def test_compiled_as_torch_has_it_at_lengths_it_was_not_exported_with(opened, family, cut, tmp_path):
    backbone = opened(family, max_tokens=20)
    path = tmp_path / "prefix.onnx"
    spec = export(backbone, path, cut=cut)
    assert spec.why_torch == ""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    network = pooled_network(backbone, cut)
    for texts in (TEXTS, TEXTS[:1], [" ".join(WORDS)]):
        tokens = tokens_of(backbone, texts)
        (found,) = session.run(None, {"tokens": tokens.numpy()})
        np.testing.assert_allclose(found, network(tokens).numpy(), atol=2e-4)


def test_windows_are_averaged_by_their_tokens_at_every_cut(opened):
    backbone = opened("bert", max_tokens=8)
    preprocess = backbone.preprocess.with_fitting("windows")
    short, long = preprocess.prepare("a good film"), preprocess.prepare(" ".join(WORDS[:15]))
    tokens = torch.from_numpy(preprocess.collate([short, long]))
    assert tokens.shape == (2, 24)
    network = pooled_network(backbone, "")
    windows = [torch.from_numpy(long[start : start + 8][None]) for start in (0, 8, 16)]
    windows = [window[:, : int((window >= 0).sum())] for window in windows]
    counts = [window.shape[1] for window in windows]
    expected = sum(count * network(window) for count, window in zip(counts, windows, strict=True)) / sum(counts)
    whole = network(tokens)
    torch.testing.assert_close(whole[1:], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole[:1], network(torch.from_numpy(short[None])), atol=1e-5, rtol=0)
    tail = pooled_tail(backbone, None).eval()
    torch.testing.assert_close(tail(tokens, whole.new_empty(2, 0)), whole, atol=1e-5, rtol=0)
    given = pooled_network(backbone, "layers.0")(tokens)
    state, before = given[:, : 24 * 17].reshape(2, 24, 17), given[:, 24 * 17 :]
    tail = pooled_tail(backbone, "layers.0").eval()
    torch.testing.assert_close(tail(state, before), whole, atol=1e-5, rtol=0)


def test_one_vector_of_a_text_is_made_as_the_checkpoint_says(opened):
    for pooling in ("mean", "cls"):
        backbone = opened("bert", pooling=pooling, normalised=pooling == "cls")
        tokens = tokens_of(backbone)
        mask = tokens >= 0
        hidden = backbone.encoder.network(input_ids=tokens.clamp(min=0), attention_mask=mask.long()).last_hidden_state
        expected = hidden[:, 0] if pooling == "cls" else (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        if pooling == "cls":
            expected = expected / expected.norm(dim=1, keepdim=True)
        torch.testing.assert_close(backbone(tokens), expected, atol=1e-5, rtol=0)


def test_states_are_padded_to_the_least_length_that_holds_all(opened):
    backbone = opened("bert", max_tokens=20)
    samples = [Sample(id=str(number), item=text) for number, text in enumerate(TEXTS)]
    assert longest_length(backbone.preprocess, samples[:3], 20) == 16
    assert longest_length(backbone.preprocess, samples, 20) == 20
    windows = backbone.preprocess.with_fitting("windows")
    assert longest_length(windows, [Sample(id="long", item=" ".join(WORDS))], 20) == 40

    class Torch:
        num_workers, batch_size, precision, model_path = 1, 4, "float32", None

        def __init__(self, spec):
            self.spec = spec
            self.network = pooled_network(backbone, "layers.0")

        def __call__(self, batch):
            return self.network(torch.from_numpy(batch)).numpy()

    plain = Torch(_spec(backbone))
    padded = PaddedPrefix(plain, 16)
    tokens = tokens_of(backbone, TEXTS[:1]).numpy()
    given = padded(tokens)
    assert given.shape == (1, padded.spec.width)
    state = given[:, padded.spec.columns(STATE)].reshape(1, 16, 17)
    assert state[0, :, -1].tolist() == [1.0] * 3 + [0.0] * 13
    assert not state[0, 3:].any()
    np.testing.assert_array_equal(given[:, 16 * 17 :], plain(tokens)[:, 3 * 17 :])


def _spec(backbone):
    from headstart.features.prefix import BlockSlice, PrefixSpec

    behind = 20 * 17
    layout = [BlockSlice(name=STATE, start=0, width=behind)]
    layout += [BlockSlice(name=f"{part}", start=behind + 16 * part, width=16) for part in range(2)]
    return PrefixSpec(
        info=backbone.info,
        preprocess=backbone.preprocess,
        layout=tuple(layout),
        relative_error=0.0,
        cut="layers.0",
        state_shape=(20, 17),
    )


def test_each_layer_is_a_block_of_its_own_in_training(opened):
    backbone = opened("deberta-v2", max_tokens=20)
    whole = parameters_by_block(pooled_tail(backbone, None).network)
    assert len(whole) == 4
    assert all("layer.1." in name for name in whole[2])
    assert any("rel_embeddings" in name for name in whole[0])
    behind = pooled_tail(backbone, "layers.1")
    parameters = dict(behind.network.named_parameters())
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
    assert trained == [name for name in parameters if "layer.2." in name]
    assert parameters_by_block(behind.network)[-1] == trained


def test_layers_in_no_list_are_used_whole(opened, tmp_path):
    backbone = opened("albert", max_tokens=20)
    tokens = tokens_of(backbone)
    assert backbone.blocks == ("encoder", "pool")
    network = pooled_network(backbone, "")
    tail = pooled_tail(backbone, None).eval()
    torch.testing.assert_close(tail(tokens, tokens.new_empty(4, 0, dtype=torch.float32)), network(tokens), atol=1e-5, rtol=0)
    assert export(backbone, tmp_path / "prefix.onnx").why_torch == ""
    assert [len(block) for block in parameters_by_block(tail.network)] == [len(list(tail.network.parameters()))]
    with pytest.raises(BackboneError, match=r"AlbertModel keeps its 3 layers in no list") as caught:
        backbone.cut("encoder")
    assert "strategy extract or full" in caught.value.mend


def test_a_block_that_is_none_is_named_with_the_nearest(opened):
    with pytest.raises(BackboneError, match=r"cannot be cut behind 'layer.1'") as caught:
        opened("bert", max_tokens=20).cut("layer.1")
    assert "'layers.1'" in caught.value.mend


def test_a_tokenizer_that_is_not_fast_is_refused(tmp_path, monkeypatch):
    folder = save_encoder(tmp_path / "model")

    class Slow(transformers.PythonBackend):
        def __init__(self):
            pass

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: Slow())
    with pytest.raises(BackboneError, match=r"is no fast one") as caught:
        open_backbone(f"file:{folder}")
    assert "tokenizer.json" in caught.value.expected


def test_what_is_no_encoder_is_refused_in_words(tmp_path):
    folder = save_encoder(tmp_path / "model")
    config = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, vocab_size=28)
    transformers.T5Model(config).save_pretrained(folder)
    with pytest.raises(BackboneError, match=r"is no encoder of texts: T5Model"):
        open_backbone(f"file:{folder}")


def test_other_settings_beside_the_same_weights_are_another_backbone(tmp_path):
    folder = save_encoder(tmp_path / "model", pooling="mean")
    first = open_backbone(f"file:{folder}")
    told = json.loads((folder / "1_Pooling" / "config.json").read_text())
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({name: not value for name, value in told.items()}))
    second = open_backbone(f"file:{folder}")
    assert first.info.sha256 != second.info.sha256
    assert (first.encoder.summary, second.encoder.summary) == ("mean", "cls")


def test_untrained_twins_have_the_form_and_not_the_weights(tmp_path):
    folder = save_encoder(tmp_path / "model", max_tokens=20)
    trained, twin = open_backbone(f"file:{folder}"), open_backbone(f"random:file:{folder}")
    again = open_backbone(f"random:file:{folder}")
    assert twin.blocks == trained.blocks
    assert twin.preprocess == trained.preprocess
    assert twin.info.sha256 == again.info.sha256 != trained.info.sha256
    tokens = tokens_of(trained)
    torch.testing.assert_close(twin(tokens), again(tokens))
    assert not torch.allclose(twin(tokens), trained(tokens), atol=1e-2)


def test_a_folder_without_weights_or_tokenizer_is_refused(tmp_path):
    folder = save_encoder(tmp_path / "model")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(BackboneError, match=r"cannot be loaded by transformers"):
        open_backbone(f"file:{folder}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"holds no weights"):
        open_backbone(f"file:{folder}")


def test_tokenizer_model_is_the_saved_one(opened):
    backbone = opened("bert", max_tokens=20)
    assert isinstance(backbone.preprocess.opened.model, models.WordLevel)
    assert backbone.preprocess.prepare("good xylophone").tolist()[2] == 1
    assert PADDING == -1


def test_long_texts_share_a_call_with_fewer(monkeypatch, opened):
    monkeypatch.setattr(batches, "MOST_TOGETHER", 40)
    preprocess = opened("bert", max_tokens=20).preprocess
    lengths = [1, 2, 3, 4, 10, 11, 12, 14, 50, 60]
    samples = [Sample(id=str(number), item="a" * length) for number, length in enumerate(lengths)]
    found = batches.in_batches(samples, 4, lambda sample: preprocess.size(sample.item))
    assert [[len(sample.item) for sample in few] for few in found] == [[1, 2, 3, 4], [10, 11, 12], [14], [50], [60]]
