"""Learning from pairs: the loss, the sampling, seeds, and a break; then a whole fit, and what is refused."""

import csv
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headstart
from headstart.config import FitSettings
from headstart.errors import SettingError
from headstart.records import Dataset, Sample, Splits
from headstart.select.contrastive import train_by_pairs
from headstart.select.rules import Circumstances, make_plan
from headstart.select.scoring import scores_of
from headstart.select.strategy import check_pairs, propose
from headstart.select.trials import try_strategy
from headstart.select.tuned import cut_before
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.contrastive import count_alike, pair_losses
from test_texts_tuning import FLOOR, ground, prepared_for, source  # noqa: F401 - fixtures
from text_models import WORDS

LABELS = ("no", "yes")
FACTS = Circumstances(num_items=64, num_classes=2, device="cpu", pretrained=True, transformer=True, modality="text")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pairs_of(labels):
    first, second = np.triu_indices(len(labels), 1)
    same = labels[first] == labels[second]
    return first, second, same


def test_loss_is_that_of_sentence_transformers_on_the_same_pairs():
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    class Given(torch.nn.Module):
        """Stands in for the network: its 'texts' are the features themselves."""

        def forward(self, features):
            return {"sentence_embedding": features["vectors"]}

    random = np.random.default_rng(0)
    vectors = torch.from_numpy(random.standard_normal((12, 5)))
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 0, 0, 1, 1, 0])
    first, second, same = pairs_of(labels)
    # As oversampling deals them: as many pairs of one label as of two; each counts by its share.
    theirs = CosineSimilarityLoss(Given())
    halves = [
        theirs(
            [{"vectors": vectors[first[chosen]]}, {"vectors": vectors[second[chosen]]}], torch.from_numpy(same[chosen] * 1.0)
        )
        for chosen in (same, ~same)
    ]
    ours = pair_losses(vectors, torch.from_numpy(labels)).mean()
    torch.testing.assert_close(ours, sum(halves) / 2)


def test_gradient_of_the_loss_is_right():
    vectors = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 0])
    assert torch.autograd.gradcheck(lambda given: pair_losses(given, labels), vectors)


@settings(deadline=None, max_examples=60)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=12), seed=st.integers(0, 1000))
def test_what_holds_of_the_loss_whatever_the_batch(labels, seed):
    labels = np.array(labels)
    random = np.random.default_rng(seed)
    vectors = torch.from_numpy(random.standard_normal((len(labels), 4))).requires_grad_()
    losses = pair_losses(vectors, torch.from_numpy(labels))
    assert losses.shape == (len(labels),)
    assert torch.isfinite(losses).all()
    assert (losses >= 0).all()
    losses.mean().backward()
    assert torch.isfinite(vectors.grad).all()
    # Neither the order of the batch, nor the labels' numbers, nor the features' lengths matter.
    order, lengths = random.permutation(len(labels)), torch.from_numpy(random.uniform(0.5, 2, (len(labels), 1)))
    other = pair_losses((vectors * lengths)[order], torch.from_numpy(7 - labels[order]))
    torch.testing.assert_close(other, losses[order])
    # Weights of all pairs together: a half for each sort that there is; every cosine is at most 2 from what is wanted.
    first, _, same = pairs_of(labels)
    assert float(losses.detach().mean()) <= 4 * (0.5 * same.any() + 0.5 * (~same).any()) + 1e-9
    assert len(first) or float(losses.detach().sum()) == 0
    assert 0 <= count_alike(vectors.detach(), torch.from_numpy(labels)) <= len(labels)


def test_loss_is_zero_where_labels_lie_along_axes_and_one_label_alone_still_draws_together():
    axes = torch.eye(3)[[0, 0, 1, 1, 2, 2]]
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert pair_losses(axes, labels).max() < 1e-12
    assert count_alike(axes, labels) == 6
    apart = pair_losses(torch.eye(2), torch.tensor([1, 1]))
    assert float(apart.mean()) == pytest.approx(0.5)
    assert count_alike(torch.eye(2)[:1], torch.tensor([1])) == 0


def contrastive(ground, **numbers):  # noqa: F811 - the fixture's value
    prepared = prepared_for(ground, "contrastive", epochs=6, **numbers)
    return replace(prepared, ground=replace(ground, splits=replace(ground.splits, valid=())))


def test_features_come_together_and_the_head_is_solved_on_them(ground):  # noqa: F811
    prepared = contrastive(ground)
    before = {name: tensor.clone() for name, tensor in prepared.tail.state_dict().items()}
    trained = train_by_pairs(prepared, FLOOR, LABELS, ground.splits.train)
    assert trained.outcome.history[-1]["train_loss"] < trained.outcome.history[0]["train_loss"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in prepared.tail.state_dict().items())
    # The head is the exact one on the tuned features, whatever the network was trained by.
    scores = scores_of(trained.network, prepared.inputs, ground.splits.train)
    truth = np.array([ground.dataset.by_id[id_].labels[0] == "yes" for id_ in ground.splits.train])
    assert (scores.argmax(1) == truth).mean() > 0.9
    assert trained.start.head.kind in {"ridge", "logistic", "nearest-mean", "lda"}
    held = scores_of(trained.network, prepared.inputs, ground.splits.test)
    assert (held.argmax(1) == [ground.dataset.by_id[id_].labels[0] == "yes" for id_ in ground.splits.test]).mean() > 0.6


def test_the_same_seed_gives_the_same_weights_and_another_does_not(ground):  # noqa: F811
    def weights(seed):
        trained = train_by_pairs(contrastive(ground, seed=seed), FLOOR, LABELS, ground.splits.train)
        return trained.network.state_dict()

    one, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(tensor, again[name]) for name, tensor in one.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_resumed_is_as_without_a_break(ground, tmp_path):  # noqa: F811
    class Stop(Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch == 3:
                raise KeyboardInterrupt

    def run(name, callbacks=(), resume=False):
        checkpoint = Checkpoint(path=tmp_path / f"{name}.pt", about={"what": "pairs"}, resume=resume)
        prepared = contrastive(ground)
        trained = train_by_pairs(prepared, FLOOR, LABELS, ground.splits.train, checkpoint=checkpoint, callbacks=callbacks)
        return trained.network.state_dict()

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("broken", [Stop()])
    resumed = run("broken", resume=True)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_the_gate_keeps_the_floor_where_there_is_nothing_to_learn(ground):  # noqa: F811
    random = np.random.default_rng(3)
    shuffled = tuple(replace(sample, labels=(LABELS[int(random.integers(2))],)) for sample in ground.dataset.samples)
    noise = replace(ground, dataset=replace(ground.dataset, samples=shuffled))
    trial = try_strategy(contrastive(noise), FLOOR, LABELS, num_folds=3, checkpoints=())
    assert not trial.verdict.passed
    assert trial.verdict.num_items == len(ground.splits.train)  # every item was answered by a network that had not seen it
    assert trial.verdict.tuned_score < 0.75


def test_the_cut_leaves_the_first_blocks_frozen(ground):  # noqa: F811
    assert cut_before(ground.backbone, "contrastive") == "layers.0"
    assert cut_before(replace(ground.backbone, why_untraced="no list of layers"), "contrastive") is None


def texts_of(counts, *, task="single", modality="text"):
    samples = tuple(
        Sample(id=f"{label} {number}", item=f"text {number} of {label}", labels=(label,))
        for label, count in counts.items()
        for number in range(count)
    )
    dataset = Dataset(samples=samples, labels=tuple(counts), task=task, modality=modality, source="made up")
    ids = tuple(sample.id for sample in samples)
    return dataset, Splits(train=ids, valid=(), test=("held out",))


@pytest.mark.parametrize(
    ("a_class", "expected"),
    [(6, ()), (16, ("contrastive",)), (40, ("contrastive", "full", "last:2")), (80, ("full", "last:2"))],
)
def test_auto_tries_pairs_where_labels_are_few(a_class, expected):
    dataset, splits = texts_of(dict.fromkeys("abcd", a_class))
    facts = replace(FACTS, num_items=4 * a_class, num_classes=4)
    splits = replace(splits, test=("held out",))
    assert propose(dataset, splits, facts)[0] == expected
    assert "contrastive" not in propose(replace(dataset, task="multi"), splits, facts)[0]
    assert "contrastive" not in propose(replace(dataset, modality="image"), splits, replace(facts, modality="image"))[0]
    assert "contrastive" not in propose(dataset, splits, replace(facts, pretrained=False))[0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"task": "multi"}, "the task is multi"),
        ({"task": "value"}, "the task is value"),
        ({"modality": "image"}, "the items are images"),
    ],
)
def test_what_has_no_pairs_is_refused(given, told):
    dataset, splits = texts_of({"a": 4, "b": 4}, **given)
    with pytest.raises(SettingError, match=f"strategy is 'contrastive', and {told}") as caught:
        check_pairs("contrastive", dataset, splits)
    assert "--strategy auto" in str(caught.value)
    assert "more labelled texts" not in str(caught.value), "more of them would mend nothing"
    with pytest.raises(SettingError, match=told):
        check_pairs("contrastive", dataset, None)
    check_pairs("full", dataset, splits)


def test_a_label_with_one_text_is_refused_by_name():
    with pytest.raises(SettingError, match="label 'rare' has one text that trains"):
        check_pairs("contrastive", *texts_of({"a": 4, "rare": 1}))
    with pytest.raises(SettingError, match="there is one label, 'a'"):
        check_pairs("contrastive", *texts_of({"a": 4}))


def test_a_head_that_is_trained_and_a_rate_that_is_sought_are_refused():
    with pytest.raises(SettingError, match="strategy is 'contrastive', and head is 'mlp'"):
        FitSettings(strategy="contrastive", head="mlp")
    with pytest.raises(SettingError, match="a rate is sought"):
        FitSettings(strategy="contrastive", find_learning_rate=True)
    with pytest.raises(SettingError, match="--strategy contrastive"):
        FitSettings(strategy="contrastve")


def test_rules_of_pairs():
    plan = make_plan("contrastive", FACTS, FitSettings())
    assert (plan.by_pairs, plan.interpolations, plan.averaging, plan.mixup) == (True, (1.0,), "none", 0.0)
    few = make_plan("contrastive", replace(FACTS, num_items=16), FitSettings())
    assert (few.batch_size, few.epochs) == (16, 4)
    assert make_plan("contrastive", replace(FACTS, num_items=16, num_classes=4), FitSettings()).epochs == 8
    many = make_plan("contrastive", replace(FACTS, num_items=160, num_classes=10), FitSettings())
    assert (many.batch_size, many.epochs) == (40, 3), "ten steps at least"
    assert make_plan("contrastive", FACTS, FitSettings(epochs=3, learning_rate=1e-5)).backbone_rate == pytest.approx(1e-5)


@pytest.mark.long
def test_a_whole_fit_and_a_prediction_without_torch(source, tmp_path):  # noqa: F811
    random = np.random.default_rng(0)
    others = [word for word in WORDS if word not in {"good", "bad"}]
    table, out = tmp_path / "texts.csv", tmp_path / "pairs.hs"
    with table.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["text", "label", "split"])
        for number in range(60):
            words = [others[place] for place in random.integers(0, len(others), random.integers(3, 12))]
            words.insert(int(random.integers(0, len(words) + 1)), ("bad", "good")[number % 2])
            writer.writerow([" ".join(words), LABELS[number % 2], "train" if number < 40 else "test"])
    model = headstart.fit(
        table, out=out, strategy="contrastive", backbone=source.name, epochs=3, classical="none", modality="text"
    )
    summary = model.report.content["summary"]
    assert summary["strategy"] == "contrastive"
    assert summary["gate"]["kept"] == "contrastive"
    (attempt,) = model.report.content["tuning"]["attempts"]
    assert attempt["reason"].startswith("as asked")
    assert attempt["gate"]["num_items"] == summary["counts"]["train"]  # judged out of fold, though a test split is there
    assert (out / "tail.safetensors").stat().st_mode == (out / "model.onnx").stat().st_mode, "who may read one, may read both"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "the head is solved afterwards" in page
    assert "with smoothed labels" not in page, "pairs have none"
    told = [(answer.label, round(answer.probability, 4)) for answer in headstart.load(out).predict(["good film", "bad film"])]
    code = f"""
import sys, headstart
answers = headstart.load({str(out)!r}).predict(["good film", "bad film"])
assert "torch" not in sys.modules
print([(answer.label, round(answer.probability, 4)) for answer in answers])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == str(told)
