"""Language models from a corpus to a model that writes: the whole way, and what is refused on it."""

import json
import math
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

import headstart
from headstart.api.use import rewrite_report
from headstart.artifact.store import read_manifest
from headstart.backbones.catalog import find_source
from headstart.backbones.causal import open_causal
from headstart.cli import main
from headstart.errors import ArtifactError, BackboneError, DataError, SettingError
from headstart.language.saving import open_model
from language_models import save_language_model, sentences
from text_models import save_encoder

QUICK = {"task": "generate", "context": 32, "batch_size": 16}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("language") / "gpt2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join(sentences(500)))
    return path


@pytest.fixture(scope="module")
def artifact(checkpoint, corpus, tmp_path_factory):
    """A model whose backbone's folder is gone."""
    source = shutil.copytree(checkpoint, tmp_path_factory.mktemp("source") / "gone")
    folder = tmp_path_factory.mktemp("models") / "writes.hs"
    headstart.fit(corpus, out=folder, backbone=f"file:{source}", strategy="full", epochs=2, **QUICK)
    shutil.rmtree(source)
    return folder


def test_a_fit_lowers_the_perplexity_and_the_model_opens_without_its_source(artifact):
    model = headstart.load(artifact)
    test = model.report.content["summary"]["test"]
    low, high = test["perplexity_ci95"]
    assert low < test["perplexity"] < high < test["unadapted_perplexity_ci95"][0]
    assert test["bits_per_byte"] < test["unadapted_bits_per_byte"]
    assert f"{test['perplexity']:.1f}" in str(model.report)
    assert model.generate("the cat", max_new_tokens=5, temperature=0)


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_who_may_read_one_file_may_read_all(artifact):
    files = [path for path in artifact.iterdir() if path.is_file()]
    assert {"model.safetensors", "selftest.safetensors"} <= {path.name for path in files}
    assert len({path.stat().st_mode for path in files}) == 1


def test_the_report_shows_samples_of_the_same_prompts_before_and_after(artifact, tmp_path):
    content = json.loads((artifact / "report.json").read_text())
    page = (artifact / "report.html").read_text()
    assert content["samples"] and all(sample["before"] != sample["after"] for sample in content["samples"])
    assert content["samples"][0]["prompt"] in page
    assert "Unadapted" in page and "<svg" in page
    copy = shutil.copytree(artifact, tmp_path / "again.hs")
    assert rewrite_report(copy).read_text() == page and headstart.load(copy)


def test_transformers_opens_the_artifact_too_and_finds_the_same_perplexity(artifact):
    model = headstart.load(artifact)
    network = transformers.AutoModelForCausalLM.from_pretrained(artifact).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(artifact)
    # One text no longer than a block: the end token begins it and closes it, and every other token is learned.
    text = " ".join(sentences(3, seed=9))[:60]
    end = tokenizer.eos_token_id
    tokens = torch.tensor([[end, *tokenizer(text)["input_ids"], end]])
    assert tokens.shape[1] <= model.context + 1
    with torch.no_grad():
        loss = float(network(tokens, labels=tokens).loss)
    assert model.perplexity([text]) == pytest.approx(math.exp(loss), rel=1e-5)


def test_the_reported_perplexity_is_that_of_the_test_text(artifact, checkpoint, corpus):
    """Computed anew by transformers' own loss, a block at a time."""
    summary = json.loads((artifact / "report.json").read_text())["summary"]
    model = headstart.load(artifact)
    tokenizer = model.backbone.tokenizer
    text = corpus.read_text()
    tail = text[-round(0.1 * len(text)) :]
    start = len(text) - len(tail) + tail.find("\n") + 1
    tokens = np.array([0, *tokenizer(text[start:])["input_ids"], 0])
    nats = count = 0.0
    for place in range(0, len(tokens) - 1, 32):
        block = torch.from_numpy(tokens[place : place + 33])[None]
        with torch.no_grad():
            loss = float(model.backbone.network(block, labels=block).loss)
        nats, count = nats + loss * (block.shape[1] - 1), count + block.shape[1] - 1
    assert count == summary["counts"]["test_tokens"]
    assert summary["test"]["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-4)
    assert summary["test"]["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(text[start:].encode()), rel=1e-4)


def test_the_same_seed_writes_the_same_text_streaming_or_not(artifact):
    model = headstart.load(artifact)
    torch.manual_seed(1)
    one = model.generate("a dog", max_new_tokens=40, seed=3)
    torch.manual_seed(2)
    pieces = list(model.stream("a dog", max_new_tokens=40, seed=3))
    assert "".join(pieces) == one and len(pieces) > 1
    assert model.generate("a dog", max_new_tokens=40, seed=4) != one


def test_the_likeliest_tokens_are_those_that_transformers_takes(artifact):
    model = headstart.load(artifact)
    tokens = torch.tensor([[0, *model.backbone.tokenizer("my sister")["input_ids"]]])
    found = model.backbone.network.generate(tokens, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, tokens.shape[1] :]
    expected = model.backbone.tokenizer.decode([token for token in found.tolist() if token != 0])
    assert model.generate("my sister", max_new_tokens=12, temperature=0) == expected
    assert model.generate("my sister", max_new_tokens=12, top_k=1, seed=5) == expected
    assert model.generate("my sister", max_new_tokens=12, top_p=1e-9, seed=5) == expected


def test_writing_goes_on_beyond_what_the_model_reads_at_once(artifact):
    model = headstart.load(artifact)
    long = "\n".join(sentences(40))
    text = model.generate(long, max_new_tokens=150, temperature=1.5, top_p=1.0)
    assert len(model.backbone.tokenizer(text)["input_ids"]) > model.backbone.max_tokens


@pytest.mark.parametrize("strategy", ["last:1", "lora"])
def test_other_strategies_change_what_they_say_and_nothing_else(strategy, checkpoint, corpus, tmp_path):
    headstart.fit(corpus, out=tmp_path / "m.hs", backbone=f"file:{checkpoint}", strategy=strategy, epochs=2, **QUICK)
    model = headstart.load(tmp_path / "m.hs")
    before = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    after = model.backbone.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    if strategy == "last:1":
        assert moved and all(name.startswith(("transformer.h.2.", "transformer.ln_f.")) for name in moved)
    else:
        assert moved and all(name.startswith("transformer.h.") and name.endswith(".weight") for name in moved)
        assert not any("ln_" in name for name in moved)
    test = model.report.content["summary"]["test"]
    assert test["perplexity"] < test["unadapted_perplexity"]


def test_a_model_named_on_the_hub_keeps_only_what_changed(checkpoint, corpus, tmp_path):
    headstart.fit(corpus, out=tmp_path / "m.hs", backbone=f"hf:{checkpoint}", strategy="last:1", epochs=1, **QUICK)
    assert not (tmp_path / "m.hs" / "model.safetensors").exists()
    model = headstart.load(tmp_path / "m.hs")
    summary = model.report.content["summary"]
    assert model.generate("the cat", max_new_tokens=4, temperature=0)
    # Its own source again: it begins where it stopped.
    more = headstart.fit(corpus, backbone=f"artifact:{tmp_path / 'm.hs'}", strategy="extract", **QUICK)
    unadapted = more.report.content["summary"]["test"]["unadapted_perplexity"]
    assert unadapted == pytest.approx(summary["test"]["perplexity"], rel=1e-5)
    assert (more.folder / "model.safetensors").exists()


def test_the_gate_keeps_the_model_as_it_was_where_tuning_does_not_help(artifact, tmp_path):
    """Letters at random: nothing that is learned of the first helps with the last."""
    draw = np.random.default_rng(0)
    rows = [json.dumps({"text": "".join(draw.choice(list("abcdefghij0123456789"), 60))}) for _ in range(40)]
    (tmp_path / "noise.jsonl").write_text("\n".join(rows))
    how = QUICK | {"learning_rate": 1e-9, "epochs": 1}
    model = headstart.fit(tmp_path / "noise.jsonl", backbone=f"artifact:{artifact}", **how)
    summary = model.report.content["summary"]
    assert summary["strategy"] == "extract" and summary["gate"]["kept"] == "extract"
    assert summary["gate"]["tried"][0] == "last:1"
    assert summary["test"]["perplexity"] == summary["test"]["unadapted_perplexity"]
    source = open_model(artifact).backbone.network.state_dict()
    assert all(torch.equal(tensor, source[name]) for name, tensor in model.backbone.network.state_dict().items())


def test_an_interrupted_fit_goes_on_and_ends_with_the_same_weights(checkpoint, corpus, tmp_path):
    class Stop(headstart.Callback):
        def on_epoch_begin(self, epoch, logs):
            if epoch == 2:
                raise KeyboardInterrupt

    how = QUICK | {"backbone": f"file:{checkpoint}", "strategy": "last:2", "epochs": 3}
    whole = headstart.fit(corpus, out=tmp_path / "whole.hs", **how)
    with pytest.raises(KeyboardInterrupt):
        headstart.fit(corpus, out=tmp_path / "again.hs", callbacks=[Stop()], **how)
    assert not (tmp_path / "again.hs").exists()
    again = headstart.fit(corpus, out=tmp_path / "again.hs", resume=True, **how)
    one, other = (model.backbone.network.state_dict() for model in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows = [model.report.content["tuning"]["attempts"][0]["history"] for model in (whole, again)]
    assert [row["valid_loss"] for row in rows[0]] == [row["valid_loss"] for row in rows[1]]
    assert "valid_perplexity" in (tmp_path / "again.hs" / "history.csv").read_text()


def test_prompts_are_given_and_completions_learned(checkpoint, tmp_path):
    rows = [{"prompt": f"{text[:10]} ->", "completion": f" {text[10:]}"} for text in sentences(120)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = headstart.fit(tmp_path / "pairs.jsonl", backbone=f"file:{checkpoint}", strategy="last:1", epochs=1, **QUICK)
    counts = model.report.content["summary"]["counts"]
    tokenizer = model.backbone.tokenizer
    learned = sum(len(tokenizer(row["completion"])["input_ids"]) + 1 for row in rows)
    assert sum(counts[f"{part}_tokens"] for part in ("train", "watch", "valid", "test")) == learned
    assert model.report.content["samples"][0]["prompt"].endswith("->")


def test_bad_input_is_told(checkpoint, corpus, artifact, tmp_path):
    file = f"file:{checkpoint}"
    (tmp_path / "short.txt").write_text("A few words only.")
    with pytest.raises(DataError, match="too short: its train part"):
        headstart.fit(tmp_path / "short.txt", backbone=file, **QUICK)
    with pytest.raises(SettingError, match="no language model comes with"):
        headstart.fit(corpus, task="generate")
    with pytest.raises(SettingError, match="reads 64 tokens at once"):
        headstart.fit(corpus, backbone=file, task="generate", context=4096)
    with pytest.raises(SettingError, match="has 3 layers"):
        headstart.fit(corpus, backbone=file, strategy="last:9", **QUICK)
    with pytest.raises(SettingError, match="no second source"):
        headstart.fit(corpus, test=corpus, backbone=file, **QUICK)
    with pytest.raises(SettingError, match="mixup"):
        headstart.fit(corpus, backbone=file, tuning={"mixup": 0.2}, **QUICK)
    with pytest.raises(BackboneError, match="no language model that writes"):
        headstart.fit(corpus, backbone="all-minilm-l6-v2", **QUICK)
    with pytest.raises(BackboneError, match="sees the tokens that it should guess"):
        open_causal(find_source(f"file:{save_encoder(tmp_path / 'bert')}"))
    with pytest.raises(SettingError, match="top_p is 1.5"):
        headstart.load(artifact).generate("x", top_p=1.5)
    with pytest.raises(SettingError, match="temprature"):
        headstart.load(artifact).generate("x", temprature=1)


def test_a_model_that_writes_predicts_nothing_and_one_that_predicts_writes_nothing(artifact, pictures, tmp_path):
    with pytest.raises(SettingError, match="has no labels to predict"):
        headstart.load(artifact).predict(["a text"])
    with pytest.raises(ArtifactError, match="has no labels to predict"):
        headstart.evaluate(artifact, pictures)
    manifest = json.loads((artifact / "headstart.json").read_text())
    assert manifest["task"] == "generate"


def test_a_changed_file_is_told(artifact, tmp_path):
    copy = shutil.copytree(artifact, tmp_path / "changed.hs")
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.safetensors in .* is not what was saved"):
        headstart.load(copy)


def test_a_model_that_writes_is_no_source_of_one_that_labels(artifact):
    with pytest.raises(BackboneError, match="writes text, and gives no features"):
        find_source(f"artifact:{artifact}")


def test_the_commands_fit_and_write(checkpoint, corpus, tmp_path, capsys, monkeypatch):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["headstart", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    out = tmp_path / "m.hs"
    how = ("--task", "generate", "--backbone", f"file:{checkpoint}", "--strategy", "last:1", "--context", 32)
    code, told, _ = run("fit", corpus, *how, "--epochs", 2, "--out", out)
    assert code == 0 and told.startswith("Perplexity ") and "the states before layer 2 were computed once" in told
    code, told, _ = run("fit", corpus, *how, "--epochs", 1, "--out", out, "--overwrite", "--json")
    assert json.loads(told)["test"]["perplexity"] > 1 and json.loads(told)["task"] == "generate"
    asked = ("generate", out, "You enter a cave", "--max-new-tokens", 12, "--temperature", 0.8, "--top-p", 0.95, "--seed", 0)
    code, streamed, _ = run(*asked)
    assert code == 0 and streamed.startswith("You enter a cave")
    code, told, _ = run(*asked, "--json")
    answer = json.loads(told)
    assert streamed == f"{answer['prompt']}{answer['text']}\n" and answer["seed"] == 0
    code, _, error = run("predict", out, "a text")
    assert code == 2 and "has no labels to predict" in error and "headstart generate" in error
    code, told, error = run("generate", out, "x", "--temperature", -1)
    assert code == 2 and "temperature is -1" in error and not told


def test_a_model_that_labels_is_refused_before_torch_is_loaded(artifact, tmp_path, run_python):
    copy = shutil.copytree(artifact, tmp_path / "labels.hs")
    manifest = replace(read_manifest(copy), task="single", labels=("a", "b"), thresholds=(0.5, 0.5))
    (copy / "headstart.json").write_text(manifest.as_text())
    code = (
        "import sys\nfrom pathlib import Path\nfrom headstart.cli.generate import generate_text\n"
        "from headstart.errors import ArtifactError\n"
        "try:\n    generate_text(Path(sys.argv[1]), 'x', {}, as_json=False)\n"
        "except ArtifactError as error:\n    print('writes nothing' in str(error), 'torch' in sys.modules)\n"
    )
    assert run_python(code, copy).stdout.strip() == "True False"
