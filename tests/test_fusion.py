"""Several backbones together: each computed by itself, the choice left to the data, and one saved network of all."""

import json

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

import headstart
from fused_tables import fused, spec_of, table_of, two_tables
from headstart.api import evidence
from headstart.api.export import export
from headstart.api.fit import check_fused
from headstart.api.use import embed_to_file
from headstart.artifact.graph import Answer, assemble
from headstart.artifact.joining import join_networks
from headstart.backbones.catalog import find_source, locate, open_backbone
from headstart.config import FitSettings
from headstart.errors import ArtifactError, BackboneError, SettingError
from headstart.features import compile_prefix, extract
from headstart.features.fusion import fuse_specs, parts_of
from headstart.heads.linear import LinearHead
from headstart.inference import open_session
from headstart.preprocess.audio import AudioPreprocess
from headstart.preprocess.fusion import FusedPreprocess, named_arrays
from headstart.preprocess.recipe import preprocess_from_json
from headstart.records import Dataset, Sample, Splits
from headstart.select import ensemble, fusion
from headstart.select.floor import FloorPlan
from headstart.select.fusion import choose_backbone, find_footing
from headstart.select.geometry import choose_geometry
from text_models import WORDS, save_encoder

pytestmark = pytest.mark.usefixtures("compiling_here")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """The names of two tiny text backbones, one of which reads 16 tokens at once, the other 24."""
    folder = tmp_path_factory.mktemp("encoders+more")  # a '+' in a path parts nothing
    save_encoder(folder / "one", "bert", max_tokens=16)
    save_encoder(folder / "two", "distilbert", max_tokens=24)
    return f"file:{folder / 'one'}", f"file:{folder / 'two'}"


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """The names of two tiny image backbones."""
    folder = tmp_path_factory.mktemp("nets")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name in ("test_resnet", "test_efficientnet"):
            save_file(timm.create_model(name).state_dict(), folder / f"{name}.safetensors")
    return tuple(f"file:{folder / name}.safetensors#{name}" for name in ("test_resnet", "test_efficientnet"))


def texts(count=120, seed=0):
    random = np.random.default_rng(seed)
    others = [word for word in WORDS if word not in {"good", "bad"}]
    rows = []
    for number in range(count):
        words = list(random.choice(others, 10))
        label = ("bad", "good")[number % 2]
        words.insert(int(random.integers(10)), label)
        rows.append((" ".join(words), label))
    return rows


def always_together(challenger, holder, errors=1.0):
    return True, f"{challenger.name} against {holder.name}: as the test has it"


@pytest.fixture(scope="module")
def model(encoders, tmp_path_factory, compiling_here):
    """A model of two text backbones and of terms, which the test has kept together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion, "better", always_together)
        patch.setattr("headstart.select.classical.likely_shares", lambda *_: np.array([0.5, 0.5]))
        patch.setattr("headstart.select.classical._decide", lambda *_: ("both", "as the test has it"))
        return headstart.fit(texts(), backbone="+".join(encoders), out=tmp_path_factory.mktemp("models") / "fused.hs")


def test_each_backbone_is_computed_as_if_alone(encoders, empty_cache):
    samples = [Sample(id=f"{row}", item=text, labels=(label,)) for row, (text, label) in enumerate(texts(20))]
    alone = compile_prefix(find_source(encoders[0])).wait()
    first = extract(alone, alone.spec.preprocess, samples)
    source = find_source("+".join(encoders))
    together = compile_prefix(source).wait()
    told = []
    table = extract(together, together.spec.preprocess, samples, progress=lambda *done: told.append(done))
    assert (first.misses, table.misses, table.hits) == (20, 20, 0), "the second backbone knows none of them yet"
    assert told[-1] == (40, 40)
    again = extract(together, together.spec.preprocess, samples)
    assert (again.misses, again.hits) == (0, 20)
    second = parts_of(together)[1]
    other = extract(second, second.spec.preprocess, samples)
    assert (other.misses, compile_prefix(source).cached) == (0, True)
    np.testing.assert_array_equal(table.features("multi"), np.hstack([first.features("multi"), other.features("multi")]))
    np.testing.assert_array_equal(table.features("last"), np.hstack([first.features("last"), other.features("last")]))
    block = other.spec.layout[1].name
    np.testing.assert_array_equal(table.features(f"{encoders[1]}/{block}"), other.features(block))
    np.testing.assert_array_equal(table.of_part(1).features("multi"), other.features("multi"))
    assert sum(table.spec.widths("last")) == table.spec.info.width
    assert table.hashes == first.hashes
    with pytest.raises(SettingError, match="no block 'layer'"):
        table.features("layer")


def test_a_fused_model_is_one_network_that_says_what_it_stands_on(model, encoders):
    told = model.manifest.backbone
    assert told["name"] == "+".join(encoders)
    assert [part["name"] for part in told["parts"]] == list(encoders)
    assert [part["sha256"] for part in told["parts"]] == [find_source(name).sha256 for name in encoders]
    assert {"1.tokenizer.json", "2.tokenizer.json", "terms.json"} <= set(model.manifest.files)
    content = model.report.content
    asked = {choice["question"]: choice for choice in content["choices"]}
    kept = asked[fusion.QUESTION]
    assert kept["kept"] == fusion.TOGETHER
    assert [row["name"] for row in kept["candidates"]] == [*encoders, fusion.TOGETHER]
    assert {f"long texts for {name}" for name in encoders} <= set(asked)
    assert "not tuned" in content["tuning"]["reason"]
    assert content["summary"]["strategy"] == "extract"
    assert content["backbone"]["blocks"][0]["name"].startswith(f"{encoders[0]}/")
    page = (model.folder / "report.html").read_text(encoding="utf-8")
    assert "1. backbone" in page
    assert "2. max tokens" in page


def test_a_fused_model_answers_from_all_its_inputs(model):
    new = [text for text, _ in texts(6, seed=1)]
    batch = model.preprocess.collate([model.preprocess.prepare(text) for text in new])
    names = [given.name for given in model._session.get_inputs()]
    assert names == ["tokens.1", "tokens.2", "terms_scores"]
    whole = model.run(batch, new)
    for blank in range(2):
        emptied = tuple(np.full_like(array, 0) if index == blank else array for index, array in enumerate(batch))
        assert np.abs(model.run(emptied, new) - whole).max() > 1e-4
    one_by_one = np.concatenate([model.run(model.preprocess.collate([model.preprocess.prepare(text)]), [text]) for text in new])
    np.testing.assert_allclose(one_by_one, whole, atol=1e-5)


def test_a_fused_model_predicts_without_torch(model, run_python):
    code = """
import sys, json, headstart
found = headstart.load(sys.argv[1]).predict(["a good film", "a bad film"])
print(json.dumps([[each.label, each.probability] for each in found]))
assert not {"torch", "transformers", "onnx"} & set(sys.modules)
"""
    done = run_python(code, model.folder)
    assert done.returncode == 0, done.stderr
    here = model.predict(["a good film", "a bad film"])
    for (label, probability), wanted in zip(json.loads(done.stdout), here, strict=True):
        assert (label, probability) == (wanted.label, pytest.approx(wanted.probability, abs=1e-4))


def test_a_fused_model_is_exported_with_every_tokenizer(model, encoders, tmp_path):
    made = export(model.folder, tmp_path / "fused.onnx")
    assert [port.name for port in made.inputs] == ["tokens.1", "tokens.2", "terms", "terms_values"]
    assert "headstart.2.tokenizer.json" in made.inputs[1].meaning
    assert encoders[1] in made.inputs[1].meaning
    known = {entry.key for entry in onnx.load_from_string(made.content).metadata_props}
    assert {"headstart.1.tokenizer.json", "headstart.2.tokenizer.json"} <= known
    assert made.num_compared == 3


def test_a_changed_recipe_of_one_part_is_refused(model):
    told, files = model.manifest.preprocess, {name: (model.folder / name).read_bytes() for name in model.manifest.files}
    assert preprocess_from_json(told, files.__getitem__).fingerprint() == model.preprocess.fingerprint()
    for broken in (
        told | {"rules": 99},
        told | {"parts": told["parts"][:1]},
        told | {"parts": [told["parts"][0], 7]},
        told | {"parts": [told["parts"][0], told["parts"][1] | {"more": 1}]},
        {"kind": "fusion"},
    ):
        with pytest.raises(ArtifactError):
            preprocess_from_json(broken, files.__getitem__)
    with pytest.raises(ArtifactError, match="another than the recipe names"):
        preprocess_from_json(told, lambda name: files[name.replace("2.", "1.")] + b" ")


def test_a_fused_model_is_no_source_of_another(model, encoders):
    with pytest.raises(BackboneError, match="stands on several backbones") as caught:
        find_source(f"artifact:{model.folder}")
    assert "+".join(encoders) in caught.value.mend


def test_embedding_by_several(encoders, tmp_path):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    items = [text for text, _ in texts(30)]
    table = headstart.embed(items, backbone="+".join(encoders))
    told = []
    done = embed_to_file(items, tmp_path / "f.parquet", backbone="+".join(encoders), progress=lambda *at: told.append(at))
    assert (done["width"], done["items"], told[-1]) == (32, 30, (30, 30))
    vectors = np.stack(pyarrow.read_table(tmp_path / "f.parquet")["vector"].to_pylist())
    np.testing.assert_allclose(vectors, table.features("last"))


def test_strategies_that_train_are_refused_for_several(encoders, tmp_path):
    for strategy in ("last:2", "full", "lora", "contrastive"):
        with pytest.raises(SettingError, match="several backbones") as caught:
            headstart.fit(texts(12), backbone="+".join(encoders), strategy=strategy, out=tmp_path / "no.hs")
        assert encoders[0] in caught.value.mend
    assert not list(tmp_path.iterdir())
    with pytest.raises(BackboneError, match="cannot be opened as one"):
        open_backbone("+".join(encoders))


def test_the_backbone_that_is_named_to_be_tuned_has_weights():
    with pytest.raises(SettingError, match="several backbones") as caught:
        check_fused(FitSettings.from_options({"strategy": "full"}), locate("mfcc+speaker", modality="audio"))
    assert caught.value.mend.endswith("--backbone speaker")


def test_where_one_is_as_good_alone_it_answers_and_each_fold_asks_anew(encoders, tmp_path, monkeypatch):
    asked = []

    def listen(table, *rest):
        asked.append(len(table.spec.parts))
        return find_footing(table, *rest)

    monkeypatch.setattr(evidence, "find_footing", listen)
    monkeypatch.setattr(fusion, "better", lambda challenger, holder, errors=1.0: (False, "as the test has it"))
    monkeypatch.setattr(ensemble, "likely_shares", lambda _, sides: np.eye(len(sides))[0])
    model = headstart.fit(texts(16), backbone="+".join(encoders), classical="none", out=tmp_path / "one.hs")
    assert model.manifest.backbone["name"] in encoders
    assert model.manifest.preprocess["kind"] == "text"
    assert len(asked) > 2
    assert set(asked) == {2}, "what is left out of a fold has no part in the choice either"
    assert "cross-validation" in model.report.content["evaluation"]["basis"]


def test_heads_that_answer_in_common_are_saved_as_one(encoders, tmp_path, monkeypatch):
    monkeypatch.setattr(fusion, "better", lambda challenger, holder, errors=1.0: (False, "as the test has it"))
    monkeypatch.setattr(ensemble, "knowledge", lambda *_: (1.0, 0.0))
    monkeypatch.setattr(ensemble, "likely_shares", lambda _, sides: np.full(len(sides), 1 / len(sides)))
    model = headstart.fit(texts(80), backbone="+".join(encoders), strategy="extract", out=tmp_path / "mixed.hs")
    content = model.report.content
    assert content["summary"]["floor"]["head"] == "mixture"
    (kept,) = (each for each in content["choices"] if each["question"] == fusion.QUESTION)
    assert kept["kept"] == fusion.MIXTURE
    assert kept["reason"].endswith(f"{encoders[0]} 33%, {encoders[1]} 33%, {fusion.TOGETHER} 33%")
    assert {"head, all together", f"head, {encoders[0]}"} <= {each["question"] for each in content["choices"]}
    assert model.predict([texts(1)[0][0]])[0].label in {"good", "bad"}
    assert "a mixture of their heads" in (model.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("second_tells", "part", "kept"), [(True, None, fusion.TOGETHER), (False, 0, "x")])
def test_the_data_say_which_or_all(second_tells, part, kept):
    tables, dataset = two_tables(second_tells)
    table = fused(tables, dataset.samples)
    splits, plan = Splits(train=table.ids, groups={}, origin=""), FloorPlan(balance="none", seed=0)
    choice = choose_backbone(table, dataset, splits, plan)
    assert choice.part == part
    assert [trial.name for trial in choice.trials] == ["x", "y", fusion.TOGETHER]
    assert (choice.trials[2].score > choice.trials[0].score + 0.1) == second_tells
    found = find_footing(table, dataset, splits, ("a", "b"), plan)
    assert found.part == part
    assert found.floor.choices[0]["kept"] == kept
    assert found.table.spec.info.name == ("x+y" if part is None else "x")
    assert found.floor.answers_to(found.table, table.ids[:5], "single").shape == (5, 2)


def test_nothing_is_asked_of_one_class():
    tables, dataset = two_tables(True)
    table = fused(tables, dataset.samples)
    alike = tuple(sample.id for sample in dataset.samples if sample.labels == ("a",))
    choice = choose_backbone(table, dataset, Splits(train=alike, groups={}, origin=""), FloorPlan(balance="none", seed=0))
    assert (choice.part, choice.trials) == (None, ())
    assert "one class" in choice.reason


def test_what_one_network_cannot_read_is_unreadable():
    samples = [Sample(id=id_, item=None, labels=()) for id_ in "pqrs"]
    one = table_of(spec_of("x", 3), np.arange(15).reshape(3, 5), "pqs", {"r": "empty: nothing in it"})
    two = table_of(spec_of("y", 3), np.arange(10).reshape(2, 5) + 100, "sp", {"r": "empty: nothing", "q": "short: too short"})
    table = fused([one, two], samples)
    assert table.ids == ("p", "s")
    assert table.failures == {"r": "empty: nothing in it", "q": "short: too short (for y)"}
    np.testing.assert_array_equal(table.features("last"), [[2, 3, 4, 107, 108, 109], [12, 13, 14, 102, 103, 104]])
    np.testing.assert_array_equal(table.features("multi")[:, :5], one.features("multi", "ps"))


@pytest.mark.parametrize(
    ("name", "told", "mend"),
    [
        ("efficientnet-lite0+", "no name behind", "--backbone efficientnet-lite0"),
        ("+efficientnet-lite0", "no name before", "--backbone efficientnet-lite0"),
        ("+", "no name before", "--backbone auto"),
        ("file:/no/c++/net", "no name behind", "check the path"),
        ("efficientnet-lite0+efficientnet-lite0", "comes twice", "--backbone efficientnet-lite0"),
        ("wordllama+all-minilm-l6-v2+wordllama-256", "'wordllama-256' comes twice", "wordllama-256+all-minilm-l6-v2"),
        ("efficientnet-lite0+efficientnet-lite9", "no backbone called 'efficientnet-lite9'", "efficientnet-lite"),
        ("efficientnet-lite0+all-minilm-l6-v2", "efficientnet-lite0 takes image items, all-minilm-l6-v2 takes text", "kind"),
        ("efficientnet-lite0+random:resnet18", "'random:resnet18' in .* is untrained", "random:resnet18 --strategy full"),
    ],
)
def test_names_that_do_not_go_together(name, told, mend):
    with pytest.raises(BackboneError, match=told) as caught:
        find_source(name)
    assert mend in caught.value.mend


def test_backbones_of_another_kind_name_suitable_ones():
    with pytest.raises(BackboneError, match="takes text items, and these are image items") as caught:
        locate("all-minilm-l6-v2+wordllama", modality="image")
    assert "efficientnet-lite0" in caught.value.expected
    with pytest.raises(BackboneError) as caught:
        find_source("efficientnet-lite0+all-minilm-l6-v2")
    assert "For text items: all-minilm-l6-v2, wordllama-256" in caught.value.expected


def test_the_graph_of_two_networks_with_mirrored_views(nets, pictures):
    prefix = compile_prefix(locate("+".join(nets)), image_size=64).wait()
    geometry = choose_geometry(
        prefix, Dataset(samples=(), labels=(), task="single", modality="image", source=""), geometry="squash", seed=0
    )
    recipe, spec = geometry.preprocess, prefix.spec
    assert isinstance(recipe, FusedPreprocess)
    assert (recipe.fitting, recipe.views, spec.preprocess.fitting) == ("squash", ("flip",), "crop")
    random, width = np.random.default_rng(0), sum(spec.widths("last"))
    head = LinearHead(weight=random.standard_normal((3, width)).astype(np.float32), bias=np.zeros(3, np.float32), kind="ridge")
    answer = Answer(
        width=spec.width,
        inputs=("pixels.1", "pixels.2"),
        columns=spec.runs("last"),
        flips=True,
        head=head,
        temperatures=np.full(3, 2.0),
        task="value",
    )
    session = open_session(assemble([part.model_path for part in parts_of(prefix)], answer), num_threads=1)
    samples = [Sample(id=str(path), item=path, labels=()) for path in sorted(pictures.rglob("*.jpg"))[:3]]
    table = extract(prefix, recipe, samples, views=("", "flip"))
    batch = recipe.collate([recipe.prepare(sample.item) for sample in samples])
    found = session.run(None, named_arrays(recipe.input_name, recipe, batch))[0]
    wanted = head.scores(table.features("last")) / 2.0
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())
    np.testing.assert_allclose(prefix(batch), table.vectors[:, 0], rtol=1e-3, atol=1e-3)


def doubling(operators, columns):
    """A network in an older or newer operator set: `x` times a constant, where all such networks use the same names."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length"])
    made = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", "length"])
    factor = numpy_helper.from_array(np.array(float(columns), np.float32), "factor")
    nodes = [helper.make_node("Mul", ["x", "factor"], ["inner"]), helper.make_node("Identity", ["inner"], ["features"])]
    graph = helper.make_graph(nodes, "doubling", [given], [made], [factor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", operators)], ir_version=9)


def test_joined_networks_keep_their_names_and_lengths_apart():
    joined = join_networks([doubling(18, 2), doubling(16, 3), doubling(18, 5)], ["a", "b", "c"])
    onnx.checker.check_model(joined)
    session = open_session(joined.SerializeToString(), num_threads=1)
    arrays = {name: np.ones((2, length), np.float32) for name, length in (("a", 1), ("b", 4), ("c", 2))}
    (found,) = session.run(None, arrays)
    np.testing.assert_array_equal(found, [[2, 3, 3, 3, 3, 5, 5]] * 2)
    assert [size.dim_param for size in joined.graph.input[1].type.tensor_type.shape.dim] == ["batch", "length.2"]


def test_fused_specs_add_up():
    spec = fuse_specs([spec_of("x", 3), spec_of("y", 4), spec_of("z", 1)])
    assert (spec.info.name, spec.info.width, spec.width, spec.starts) == ("x+y+z", 8, 14, (0, 5, 11))
    assert spec.runs("last") == (slice(2, 5), slice(7, 11), slice(13, 14))
    assert spec.widths("multi") == (2, 3, 2, 4, 2, 1)
    assert spec.network_widths("multi") == (5, 6, 3) and spec.network_widths("last") == (3, 4, 1)
    assert spec.network_widths("y/pool") is None and spec_of("x", 3).network_widths("multi") is None
    assert (spec.runs("y/pool"), spec.info.licence) == ((slice(7, 11),), "x: free; y: free; z: free")
    assert type(spec.info).from_json(spec.info.as_json()) == spec.info
    assert len(spec.info.sha256) == 64


def test_what_every_part_notices_is_told_once():
    parts = (AudioPreprocess(max_windows=2), AudioPreprocess(max_windows=4))
    recipe = FusedPreprocess(names=("short", "long"), parts=parts)
    sounds = {"silent": (np.zeros(16_000, np.float32), 16_000), "long": (np.full(40_000, 0.1, np.float32), 16_000)}
    told = recipe.notice(sounds)
    assert [(finding.kind, finding.items) for finding in told] == [("silence", ("silent",)), ("long_sounds", ("long",))]
    assert not told[0].message.startswith("for ") and told[1].message.startswith("for short: ")
