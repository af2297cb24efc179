"""A text network tuned by `fit`: saved, opened, taken as a source; and compiled anew where files were lost."""

import json

import numpy as np
import pytest

import headstart
from headstart.backbones.catalog import find_source, open_source
from headstart.features import compile as compile_module
from headstart.features import compile_prefix
from text_models import WORDS, save_encoder


@pytest.fixture(scope="module")
def labelled():
    """Texts that hold 'good' or 'bad', with their labels."""
    random = np.random.default_rng(1)
    others = [word for word in WORDS if word not in {"good", "bad"}]
    pairs = []
    for number in range(120):
        words = [others[place] for place in random.integers(0, len(others), random.integers(3, 14))]
        words.insert(int(random.integers(0, len(words) + 1)), ("bad", "good")[number % 2])
        pairs.append((" ".join(words), ("no", "yes")[number % 2]))
    return list(dict(pairs).items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "model", "bert", pooling="mean", max_tokens=12)


@pytest.mark.long
@pytest.mark.parametrize("geometry", ["head", "windows"])
def test_tuned_behind_a_cut_saved_and_taken_as_a_source(labelled, folder, geometry, tmp_path):
    out = tmp_path / "tuned.hs"
    options = {"modality": "text", "backbone": f"file:{folder}", "geometry": geometry, "classical": "none"}
    model = headstart.fit(labelled, out=out, strategy="last:1", epochs=2, **options)
    report = json.loads((out / "report.json").read_text())
    assert report["summary"]["strategy"] == "last:1"
    assert (out / "tail.safetensors").is_file()
    text = "the film was good"
    assert headstart.load(out).predict([text])[0].probabilities == model.predict([text])[0].probabilities
    source = find_source(f"artifact:{out}")
    assert source.modality == "text"
    tuned, base = open_source(source), open_source(find_source(f"file:{folder}"))
    assert tuned.info.tuned
    own, before = tuned.encoder.network.state_dict(), base.encoder.network.state_dict()
    changed = {name for name in own if not np.array_equal(own[name].numpy(), before[name].numpy())}
    assert changed
    assert all(name.startswith("encoder.layer.2.") for name in changed)


@pytest.mark.long
def test_a_compiled_folder_that_lost_something_is_made_anew(folder, empty_cache):
    source = find_source(f"file:{folder}")
    first = compile_prefix(source)
    assert not first.cached
    expected = first.wait()(np.array([[2, 5, 6, 3]]))
    (made,) = (empty_cache / "compiled").iterdir()
    assert compile_module._whole_spec(made) is not None
    for spoil in (
        lambda: (made / "tokenizer.json").unlink(),
        lambda: (made / "tokenizer.json").write_text("{}"),
        lambda: (made / "prefix.onnx").write_bytes(b""),
        lambda: (made / "prefix.json").write_text("{"),
    ):
        kept = {path.name: path.read_bytes() for path in made.iterdir()}
        spoil()
        assert compile_module._whole_spec(made) is None
        for name, content in kept.items():
            (made / name).write_bytes(content)
    (made / "tokenizer.json").unlink()
    again = compile_prefix(source)
    assert not again.cached
    np.testing.assert_array_equal(again.wait()(np.array([[2, 5, 6, 3]])), expected)
    assert compile_prefix(source).cached
