"""Tuning a text encoder on the one dial: what trains and what does not, what is saved, and that a break changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from headstart.api.taking_up import changed_tensors
from headstart.backbones.catalog import find_source, open_source
from headstart.backbones.parts import pooled_network, pooled_tail
from headstart.config import FitSettings
from headstart.errors import SettingError
from headstart.features.prefix import BlockSlice, PrefixSpec
from headstart.features.table import FeatureTable
from headstart.heads.linear import LinearHead
from headstart.records import Dataset, Sample, Splits
from headstart.select.floor import FloorPlan, find_floor
from headstart.select.rules import Circumstances, make_plan
from headstart.select.scoring import scores_of
from headstart.select.tuned import Ground, Prepared, build_network, train
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.inputs import ItemInputs
from headstart.tuning.plan import TuningPlan
from text_models import WORDS, save_encoder

NUM_ITEMS, NUM_TRAIN = 72, 48
FLOOR = FloorPlan(balance="none", seed=0, classical=False)


class CutInputs:
    """States of texts at a cut, as the store gives them: all of one length, zeros behind the end."""

    def __init__(self, backbone, cut, texts, length):
        self.network, self.texts, self.length = pooled_network(backbone, cut), texts, length
        self.preprocess, self.channels = backbone.preprocess, backbone.info.width + 1

    def load(self, ids, view):
        tokens = self.preprocess.collate([self.preprocess.prepare(self.texts[id_]) for id_ in ids])
        with torch.no_grad():
            given = self.network(torch.from_numpy(tokens)).numpy()
        behind = tokens.shape[1] * self.channels
        state = np.zeros((len(ids), self.length, self.channels), np.float32)
        state[:, : tokens.shape[1]] = given[:, :behind].reshape(len(ids), tokens.shape[1], -1)
        return state, given[:, behind:]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = save_encoder(tmp_path_factory.mktemp("encoder") / "model", max_tokens=16)
    return find_source(f"file:{folder}")


@pytest.fixture(scope="module")
def ground(source):
    """Texts with 'good' or 'bad' among other words, the features of a tiny encoder, and the floor on them."""
    backbone = open_source(source)
    random = np.random.default_rng(0)
    others = [word for word in WORDS if word not in {"good", "bad"}]
    samples = []
    for number in range(NUM_ITEMS):
        words = [others[place] for place in random.integers(0, len(others), random.integers(2, 12))]
        words.insert(int(random.integers(0, len(words) + 1)), ("bad", "good")[number % 2])
        samples.append(Sample(id=f"text {number}", item=" ".join(words), labels=(("no", "yes")[number % 2],)))
    ids = tuple(sample.id for sample in samples)
    network = pooled_network(backbone, "")
    preprocess = backbone.preprocess
    with torch.no_grad():
        tokens = preprocess.collate([preprocess.prepare(sample.item) for sample in samples])
        vectors = network(torch.from_numpy(tokens)).numpy()[:, None]
    places = zip(backbone.blocks, network.pooling.slices, strict=True)
    layout = tuple(BlockSlice(name=name, start=start, width=width) for name, (start, width) in places)
    spec = PrefixSpec(info=backbone.info, preprocess=preprocess, layout=layout, relative_error=0.0)
    table = FeatureTable(
        ids=ids, vectors=vectors, views=("",), spec=spec, preprocess=preprocess, hashes={}, failures={},
        hits=0, misses=NUM_ITEMS, seconds=1.0,
    )  # fmt: skip
    dataset = Dataset(samples=tuple(samples), labels=("no", "yes"), task="single", modality="text", source="made up")
    splits = Splits(train=ids[:NUM_TRAIN], valid=ids[NUM_TRAIN:60], test=ids[60:])
    return Ground(source=source, backbone=backbone, table=table, dataset=dataset, splits=splits, image_size=None)


def prepared_for(ground, strategy, **numbers):
    settled = {
        "epochs": 3,
        "batch_size": 16,
        "head_rate": 1e-2,
        "backbone_rate": 1e-2,
        "interpolations": (1.0,),
        "lora_rank": 4,
    }
    plan = TuningPlan(strategy=strategy, **(settled | numbers))
    cut = {"last:1": "layers.1"}.get(strategy)
    texts = {sample.id: sample.item for sample in ground.dataset.samples}
    inputs = (
        CutInputs(ground.backbone, cut, texts, 16)
        if cut
        else ItemInputs(
            preprocess=ground.table.preprocess, samples=ground.dataset.by_id, digests={}, augmentation=None, views=()
        )
    )
    return Prepared(ground=ground, plan=plan, cut=cut, inputs=inputs, tail=pooled_tail(ground.backbone, cut), note="")


def trained_by(prepared, **how):
    ground = prepared.ground
    floor = find_floor(ground.table, ground.dataset, ground.splits, ("no", "yes"), FLOOR)
    assert isinstance(floor.head, LinearHead)
    return floor, train(prepared, floor, ground.splits.train, ground.splits.valid, **how)


@pytest.mark.parametrize("strategy", ["last:1", "full", "lora"])
def test_training_changes_what_it_should_and_what_is_saved_gives_the_same_scores(ground, strategy, tmp_path):
    prepared = prepared_for(ground, strategy)
    before = {name: tensor.clone() for name, tensor in ground.backbone.encoder.network.state_dict().items()}
    _, trained = trained_by(prepared)
    losses = [row["train_loss"] for row in trained.outcome.history]
    assert losses[-1] < losses[0]
    scores = scores_of(trained.network, prepared.inputs, ground.splits.test)
    changed = changed_tensors(prepared, trained)
    own = ground.backbone.encoder.network.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in own.items())  # the frozen network is as it was
    assert set(changed) <= set(own)
    match strategy:
        case "last:1":
            assert {name.split(".")[2] for name in changed} == {"2"}
            assert len(changed) == sum(name.startswith("encoder.layer.2.") for name in own)
        case "full":
            assert {name for name in own if name.startswith("encoder.layer.")} <= set(changed)
            assert "embeddings.word_embeddings.weight" in changed
        case "lora":
            linear = [name for name, tensor in own.items() if "encoder.layer." in name and tensor.ndim == 2]
            assert sorted(changed) == sorted(linear)
    save_file(changed, tmp_path / "tail.safetensors")
    tuned = open_source(ground.source.with_changes(tmp_path / "tail.safetensors"))
    assert tuned.info.tuned
    tokens = tuned.preprocess.collate([tuned.preprocess.prepare(ground.dataset.by_id[id_].item) for id_ in ground.splits.test])
    with torch.no_grad():
        vectors = pooled_network(tuned, "")(torch.from_numpy(tokens))
        found = trained.network.head(vectors[:, trained.network.columns]).numpy()
    np.testing.assert_allclose(found, scores, atol=1e-4)


def test_training_begins_with_the_floors_own_scores(ground):
    for strategy in ("last:1", "full", "lora"):
        prepared = prepared_for(ground, strategy)
        floor = find_floor(ground.table, ground.dataset, ground.splits, ("no", "yes"), FLOOR)
        network = build_network(prepared, floor, ground.splits.train, ground.splits.valid)
        ids = ground.splits.test
        expected = floor.tempered_scores(ground.table, ids)
        np.testing.assert_allclose(scores_of(network, prepared.inputs, ids, batch_size=5), expected, atol=1e-3)


@pytest.mark.parametrize("strategy", ["last:1", "full"])
def test_resumed_is_as_without_a_break(ground, strategy, tmp_path):
    def run(name, epochs, resume=False):
        prepared = prepared_for(ground, strategy, epochs=4, averaging="ema")
        checkpoint = Checkpoint(path=tmp_path / f"{name}.pt", about={"what": strategy}, resume=resume)
        callbacks = [Stop(epochs)] if epochs < 4 else []
        return trained_by(prepared, checkpoint=checkpoint, callbacks=callbacks)[1].network.state_dict()

    from headstart.tuning.callbacks.base import Callback

    class Stop(Callback):
        def __init__(self, after):
            self.after = after

        def on_epoch_end(self, epoch, logs):
            if epoch + 1 == self.after:
                raise KeyboardInterrupt

    whole = run("whole", 4)
    # As a user breaks it off: after two epochs were written, in the third.
    with pytest.raises(KeyboardInterrupt):
        run("broken", 3)
    resumed = run("broken", 4, resume=True)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_dropout_is_on_in_layers_that_train_and_nowhere_else(ground):
    prepared = prepared_for(ground, "last:1")
    floor = find_floor(ground.table, ground.dataset, ground.splits, ("no", "yes"), FLOOR)
    network = build_network(prepared, floor, ground.splits.train, ground.splits.valid).train()
    modules = dict(network.tail.network.encoder.network.named_modules())
    assert modules["encoder.layer.2.output.dropout"].training
    assert not modules["embeddings.dropout"].training
    network.eval()
    assert not any(module.training for module in modules.values())


def test_items_of_unlike_lengths_share_a_batch_as_if_each_were_alone(ground):
    tail = pooled_tail(ground.backbone, None).eval()
    preprocess, texts = ground.backbone.preprocess, [sample.item for sample in ground.dataset.samples[:21]]
    tokens = torch.from_numpy(preprocess.collate([preprocess.prepare(text) for text in texts]))
    together = tail(tokens, torch.empty(21, 0))
    alone = [tail(torch.from_numpy(preprocess.prepare(text)[None]), torch.empty(1, 0)) for text in texts]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    together.sum().backward()
    assert all(parameter.grad is not None for name, parameter in tail.named_parameters() if "layer.0" in name)


FACTS = Circumstances(num_items=8_484, num_classes=2, device="cpu", pretrained=True, transformer=True, modality="text")


def test_rules_of_texts():
    for strategy in ("full", "last:2", "lora"):
        plan = make_plan(strategy, FACTS, FitSettings())
        assert (plan.num_views, plan.mixup, plan.cutmix) == (0, 0.0, 0.0)
        assert "texts have no augmented views" in plan.reasons["num_views"]
        assert "dropout of its configuration" in plan.reasons["dropout"]
        assert 2 <= plan.epochs <= 4
    many = make_plan("full", replace(FACTS, num_items=100_000), FitSettings())
    assert (many.mixup, many.epochs) == (0.0, 2)
    pictures = make_plan("full", replace(FACTS, modality="image"), FitSettings())
    assert "dropout" not in pictures.reasons
    assert pictures.num_views > 0


@pytest.mark.parametrize("name", ["num_views", "mixup", "cutmix"])
def test_what_only_pictures_have_is_refused_for_texts(name):
    with pytest.raises(SettingError, match=f"tuning asks for {name} 1, and the items are texts"):
        make_plan("full", FACTS, FitSettings(tuning=((name, 1),)))
