"""A model as one ONNX file: everything a stranger needs is in it, and its answers are the model's."""

import json
import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

import headstart
from commands import run_here
from headstart.artifact import portable
from headstart.errors import ArtifactError, SettingError
from test_text_fit import sentences, write_table


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    """With MiniLM's features and terms, both."""
    folder = tmp_path_factory.mktemp("export")
    table = write_table(folder / "opinions.csv", sentences())
    model = headstart.fit(table, out=folder / "opinions.hs", strategy="extract")
    assert model.terms is not None
    return model


def terms_in(text):
    """Written anew from what docs/export.md says: words and pairs of them, and pieces of words."""
    words = re.findall(r"\b\w\w+\b", text.lower())
    pieces = []
    for word in text.lower().split():
        spaced = f" {word} "
        for length in range(2, 6):
            if length >= len(spaced):
                pieces.append(spaced)
                break
            pieces += [spaced[start : start + length] for start in range(len(spaced) - length + 1)]
    return {"words": words + [" ".join(pair) for pair in zip(words, words[1:], strict=False)], "characters": pieces}


def stranger(path, texts):
    """What a program makes of the file that has never heard of this library."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    known = session.get_modelmeta().custom_metadata_map
    tokenizer = Tokenizer.from_str(known["headstart.tokenizer.json"])
    vocabulary = json.loads(known["headstart.terms.json"])
    places, answers = {}, []
    for part in ("words", "characters"):
        places[part] = {
            term: len(places.get("words", ())) * (part == "characters") + n for n, term in enumerate(vocabulary[part])
        }
    for text in texts:
        terms, values = [], []
        for part, found in terms_in(text).items():
            counts = Counter(term for term in found if term in places[part])
            weights = [(1 + math.log(times)) * vocabulary["rarity"][places[part][term]] for term, times in counts.items()]
            length = math.sqrt(sum(weight**2 for weight in weights))
            terms += [places[part][term] for term in counts]
            values += [weight / length for weight in weights]
        given = {
            "tokens": np.array([tokenizer.encode(text).ids], np.int64),
            "terms": np.array([terms], np.int64).reshape(1, -1),
            "terms_values": np.array([values], np.float32).reshape(1, -1),
        }
        answers.append(session.run(["answer"], given)[0][0])
    return json.loads(known["headstart.labels"]), np.stack(answers)


def test_a_stranger_gets_the_model_s_answers_to_texts(text_model, tmp_path):
    texts = ["a wonderful film that I will not forget", "Boring, boring BORING lecture!", "zzz", "a dull meal", "x"]
    made = headstart.export(text_model.folder, tmp_path / "opinions.onnx")
    labels, answers = stranger(tmp_path / "opinions.onnx", texts)
    assert tuple(labels) == text_model.labels
    np.testing.assert_allclose(answers, text_model.answers(texts).values, atol=1e-5)
    assert [port.name for port in made.inputs] == ["tokens", "terms", "terms_values"]
    assert made.num_compared == 3
    assert made.apart < 1e-5
    assert made.content == (tmp_path / "opinions.onnx").read_bytes()


def test_texts_of_several_lengths_go_through_in_one_batch(text_model, tmp_path):
    from headstart.artifact.portable import terms_of

    texts = ["a wonderful film", "a dreadful and boring holiday from the beginning to the end", "qqq"]
    headstart.export(text_model.folder, tmp_path / "opinions.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "opinions.onnx"), providers=["CPUExecutionProvider"])
    tokens = text_model.preprocess.collate([text_model.preprocess.prepare(text) for text in texts])
    (answers,) = session.run(None, {"tokens": tokens, **terms_of(text_model.terms, texts)})
    np.testing.assert_allclose(answers, text_model.answers(texts).values, atol=1e-5)


def test_pictures(artifact, pictures, tmp_path):
    model = headstart.load(artifact)
    made = headstart.export(artifact, tmp_path / "pictures.onnx")
    session = onnxruntime.InferenceSession(made.content, providers=["CPUExecutionProvider"])
    paths = sorted(path for path in pictures.rglob("*.*") if path.suffix in {".png", ".jpg"})[:4]
    batch = model.preprocess.collate([model.preprocess.prepare(path) for path in paths])
    np.testing.assert_allclose(session.run(None, {"pixels": batch})[0], model.answers(paths).values, atol=1e-5)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["headstart.preprocess"]) == model.manifest.preprocess
    assert known["headstart.task"] == "single"
    assert "headstart.terms.json" not in known


def test_on_the_command_line(artifact, tmp_path):
    done = run_here("export", artifact, "--out", tmp_path / "out.onnx")
    assert done.returncode == 0
    assert "takes pixels float32 (batch, 3," in done.stdout and "answers 3 items as the model does" in done.stdout
    told = json.loads(run_here("export", artifact, "--out", tmp_path / "out.onnx", "--json", "--overwrite").stdout)
    assert told["bytes"] == (tmp_path / "out.onnx").stat().st_size
    assert told["outputs"][0]["shape"][0] == "batch"


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(artifact, tmp_path, monkeypatch):
    with pytest.raises(SettingError, match=r"is not named as an ONNX file") as caught:
        headstart.export(artifact, tmp_path / "out.bin")
    assert caught.value.mend == f"--out {tmp_path / 'out.onnx'}"
    with pytest.raises(SettingError, match=r"cannot write"):
        headstart.export(artifact, tmp_path / "nowhere" / "out.onnx")
    with pytest.raises(ArtifactError, match=r"is no saved model"):
        headstart.export(tmp_path, tmp_path / "out.onnx")
    made = portable.make_portable
    monkeypatch.setattr(portable, "make_portable", lambda *given: replace(made(*given), apart=0.5))
    with pytest.raises(ArtifactError, match=r"answers otherwise than .*, by 5\.0e-01"):
        headstart.export(artifact, tmp_path / "out.onnx")
    assert not list(tmp_path.glob("*.onnx*"))
