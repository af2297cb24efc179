"""Pooling and length as a checkpoint's own settings say, of older and newer sentence-transformers, on disk and from the hub."""

import json
import shutil

import numpy as np
import pytest
import torch

from headstart.backbones import open_backbone
from headstart.errors import BackboneError
from text_models import WORDS, save_encoder


def saved_by_its_library(folder, mode, *, normalised=False, max_tokens=20):
    """A tiny encoder as the installed sentence-transformers writes it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    encoder = Transformer(str(save_encoder(folder.with_name("encoder"))), max_seq_length=max_tokens)
    modules = [encoder, Pooling(16, pooling_mode=mode), *([Normalize()] * normalised)]
    network = SentenceTransformer(modules=modules, device="cpu")
    network.save(str(folder), create_model_card=False)
    return folder, network


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken", ["cls"]])
@pytest.mark.parametrize("normalised", [False, True])
def test_features_are_those_of_sentence_transformers(tmp_path, mode, normalised):
    folder, network = saved_by_its_library(tmp_path / "model", mode, normalised=normalised)
    backbone = open_backbone(f"file:{folder}")
    texts = [" ".join(WORDS[:3]), " ".join(WORDS[5:12])]
    tokens = backbone.preprocess.collate([backbone.preprocess.prepare(text) for text in texts])
    with torch.no_grad():
        ours = backbone(torch.from_numpy(tokens)).numpy()
    theirs = network.encode(texts)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert backbone.preprocess.max_tokens == 20


@pytest.mark.parametrize("mode", ["max", ["mean", "max"]])
def test_a_pooling_that_is_not_known_here_is_refused(tmp_path, mode):
    folder, _ = saved_by_its_library(tmp_path / "model", mode)
    with pytest.raises(BackboneError, match=r"by pooling its tokens as .*'max'") as caught:
        open_backbone(f"file:{folder}")
    assert "mean, cls, lasttoken" in caught.value.expected
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(BackboneError, match=r"'max'"):
        open_backbone(f"file:{folder}")


CODE = """
import sys, torch
from headstart.backbones import open_backbone
backbone = open_backbone("hf:somebody/tiny")
print(backbone.encoder.summary, backbone.encoder.normalised, backbone.preprocess.max_tokens)
"""


def test_what_was_downloaded_from_the_hub_is_read_without_it(tmp_path, run_python):
    folder = save_encoder(tmp_path / "model", pooling="cls", normalised=True, max_tokens=12)
    stored = tmp_path / "home" / "hub" / "models--somebody--tiny"
    shutil.copytree(folder, stored / "snapshots" / "abc123")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("abc123")
    done = run_python(CODE, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="1", HEADSTART_OFFLINE="1")
    assert done.stdout.split() == ["cls", "True", "12"], done.stderr
    shutil.rmtree(stored / "snapshots" / "abc123" / "1_Pooling")
    (stored / "snapshots" / "abc123" / "modules.json").unlink()
    done = run_python(CODE, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="1", HEADSTART_OFFLINE="1")
    assert done.stdout.split() == ["mean", "False", "12"], done.stderr


def in_parts(folder):
    """The same weights in several files."""
    from transformers import AutoModel

    network = AutoModel.from_pretrained(folder, local_files_only=True)
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size="4KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def test_weights_in_several_files_are_the_same_backbone(tmp_path):
    whole = open_backbone(f"file:{save_encoder(tmp_path / 'whole')}")
    folder = in_parts(save_encoder(tmp_path / "parts"))
    parts = open_backbone(f"file:{folder}")
    tokens = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        torch.testing.assert_close(parts(tokens), whole(tokens), rtol=0, atol=0)
    one = sorted(folder.glob("model-*.safetensors"))[1]
    content = bytearray(one.read_bytes())
    content[-3] ^= 1
    one.write_bytes(bytes(content))
    assert open_backbone(f"file:{folder}").info.sha256 != parts.info.sha256


def test_a_part_that_is_missing_is_named(tmp_path):
    folder = in_parts(save_encoder(tmp_path / "parts"))
    one = sorted(folder.glob("model-*.safetensors"))[1]
    one.unlink()
    with pytest.raises(BackboneError, match=rf"lists {one.name}, which the folder .* does not hold"):
        open_backbone(f"file:{folder}")
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(BackboneError, match=r"index\.json cannot be read"):
        open_backbone(f"file:{folder}")


def test_settings_that_cannot_be_read_are_not_taken_for_none(tmp_path):
    folder = save_encoder(tmp_path / "model", pooling="cls")
    (folder / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(BackboneError, match=r"1_Pooling/config\.json of the backbone at .* cannot be read"):
        open_backbone(f"file:{folder}")
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(BackboneError, match=r"modules\.json names a pooling, and 1_Pooling/config\.json is not there"):
        open_backbone(f"file:{folder}")
