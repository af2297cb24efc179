"""Classical features of texts: counted as scikit-learn counts them, in contest with the backbone, saved as plain data."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

import headstart
from headstart.artifact.store import replace_file
from headstart.errors import ArtifactError, SettingError
from headstart.heads import term_solver
from headstart.heads.candidates import is_iterative_too_dear
from headstart.heads.choose import choose_head
from headstart.heads.folds import make_folds
from headstart.heads.term_counts import count_terms
from headstart.heads.term_solver import held_out_term_scores, pose_terms, solve_terms, subset
from headstart.heads.terms import MOST_CHARACTERS, TermsHead, count_pieces, word_terms
from headstart.model.terms import pack_terms, unpack_terms
from headstart.records import Dataset, Sample, Splits
from headstart.select.classical import QUESTION, Entrants, hold_term_contest, term_scores
from headstart.select.floor import FloorPlan, find_floor
from headstart.select.mixture import unit_of

PLEASED = "superb lovely charming delightful bright tender witty warm".split()
BORED = "dreary stale clumsy hollow tedious bleak muddled grating".split()
NEUTRAL = "the film an actor scene story camera in of was Straße café 42 don't x it's music and its".split()


def write_texts(count, *, seed=0):
    """Texts of two kinds and their kinds: a telling word or two among others that say nothing."""
    random = np.random.default_rng(seed)
    texts, kinds = [], []
    for number in range(count):
        kind = number % 2
        words = [*random.choice(NEUTRAL, 9), *random.choice((BORED, PLEASED)[kind], 2)]
        texts.append(" ".join(random.permutation(words)).capitalize() + ".")
        kinds.append(kind)
    return texts, np.array(kinds)


def counted(texts):
    return count_terms((str(number), text) for number, text in enumerate(texts))


def peers(texts, least):
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=least)
    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=least)
    return words.fit(texts), pieces.fit(texts)


@pytest.mark.parametrize(("count", "least"), [(15, 1), (130, 2)])
def test_terms_are_those_of_scikit_learn(count, least):
    texts, _ = write_texts(count)
    new, _ = write_texts(30, seed=5)
    new += ["", "  ", "ÉCOLE\tnaïve\n\nx", "unknownword!", "a b c", "aa " * 50]
    both = counted(texts + new)
    vocabularies = both.learn(both.ids[:count], num_outputs=2)
    for vocabulary, peer in zip(vocabularies, peers(texts, least), strict=True):
        assert list(vocabulary.terms) == list(peer.get_feature_names_out())
        np.testing.assert_allclose(vocabulary.rarity, peer.idf_, atol=1e-9)
        wanted = peer.transform(new).toarray()
        found = np.zeros_like(wanted)
        for row, text in zip(found, new, strict=True):
            columns, values = vocabulary.weigh(text)
            row[columns] = values
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    wanted = np.hstack([peer.transform(new).toarray() for peer in peers(texts, least)])
    np.testing.assert_allclose(both.weigh(vocabularies, both.ids[count:]).toarray(), wanted, atol=1e-6)


def test_pieces_of_short_and_long_words():
    assert count_pieces("A bc") == {" a": 1, "a ": 1, " a ": 1, " b": 1, "bc": 1, "c ": 1, " bc": 1, "bc ": 1, " bc ": 1}
    assert word_terms("One, two! a Three") == ["one", "two", "three", "one two", "two three"]
    assert word_terms("ab " * MOST_CHARACTERS) == word_terms(("ab " * MOST_CHARACTERS)[:MOST_CHARACTERS])


@pytest.mark.parametrize("count", [12, 60, 120])
def test_a_vocabulary_is_that_of_the_texts_learned_from_alone(count):
    texts, _ = write_texts(220)
    learned = [str(number) for number in range(count)]
    plain = counted(texts).learn(learned, num_outputs=2)
    other = counted(texts[:count] + [f"{text} unheard-of zebra zebra quagga" for text in texts[count:]]).learn(
        learned, num_outputs=2
    )
    for one, two in zip(plain, other, strict=True):
        assert one.terms == two.terms
        np.testing.assert_array_equal(one.rarity, two.rarity)
    assert not {"zebra", " quag"} & {term for vocabulary in other for term in vocabulary.terms}


def test_many_outputs_make_a_smaller_vocabulary_of_the_commonest(monkeypatch):
    monkeypatch.setattr("headstart.heads.term_counts.MOST_WEIGHTS", 400)
    texts, _ = write_texts(40)
    counts = counted(texts)
    words, pieces = counts.learn(counts.ids, num_outputs=10)
    assert len(words.terms) == len(pieces.terms) == 20
    assert words.rarity.max() <= np.sort(peers(texts, 2)[0].idf_)[19] + 1e-9


@pytest.fixture(scope="module")
def sparse():
    texts, kinds = write_texts(90)
    counts = counted(texts)
    return counts.weigh(counts.learn(counts.ids, num_outputs=2), counts.ids), kinds


@pytest.mark.parametrize("penalty", [3.0, 0.3])
@pytest.mark.parametrize("rotated", [0, 1_000])
def test_heads_on_terms_are_those_of_scikit_learn(sparse, penalty, rotated, monkeypatch):
    monkeypatch.setattr("headstart.heads.term_solver.MOST_ROTATED", rotated)
    rows, kinds = sparse
    three = (kinds + np.arange(len(kinds)) % 3) % 3
    exact = {"tol": 1e-9, "max_iter": 5_000}
    ones = np.ones(len(kinds))
    weight, bias = solve_terms(pose_terms(rows, np.eye(3)[:, three], ones, link="softmax"), penalty)
    peer = LogisticRegression(C=1 / penalty, **exact).fit(rows, three)
    found = rows @ weight + bias
    wanted = peer.decision_function(rows)
    np.testing.assert_allclose(found - found.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), atol=0.02)
    weight, bias = solve_terms(pose_terms(rows, kinds[None], ones, link="sigmoid"), penalty)
    peer = LogisticRegression(C=1 / penalty, **exact).fit(rows, kinds)
    np.testing.assert_allclose((rows @ weight + bias)[:, 0], peer.decision_function(rows), atol=0.02)
    numbers = np.linspace(-1, 1, len(kinds)) + kinds
    weight, bias = solve_terms(pose_terms(rows, numbers[None], ones, link="identity"), penalty)
    peer = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-9).fit(rows, numbers)
    np.testing.assert_allclose((rows @ weight + bias)[:, 0], peer.predict(rows), atol=0.02)


@pytest.mark.parametrize("at_once", [1, 10**9])
@pytest.mark.parametrize("rotated", [0, 1_000])
def test_out_of_fold_scores_come_from_the_other_folds(sparse, at_once, rotated, monkeypatch):
    monkeypatch.setattr("headstart.heads.term_solver.MOST_ROTATED", rotated)
    monkeypatch.setattr("headstart.heads.term_solver.NUMBERS_AT_ONCE", at_once)
    rows, kinds = sparse
    folds = make_folds(kinds, task="single", seed=0)
    problem = pose_terms(rows, np.eye(2)[:, kinds], np.ones(len(kinds)), link="softmax")
    for penalty, scores in list(held_out_term_scores(problem, folds))[:3]:
        for fold in range(2):
            peer = LogisticRegression(C=2 / penalty, tol=1e-8, max_iter=5_000).fit(rows[folds != fold], kinds[folds != fold])
            margin = scores[folds == fold] @ [-1, 1]
            np.testing.assert_allclose(margin, peer.decision_function(rows[folds == fold]), atol=0.1, rtol=0.05)
    changed = np.where(folds == 0, 1 - kinds, kinds)
    other = pose_terms(rows, np.eye(2)[:, changed], np.ones(len(kinds)), link="softmax")
    (_, before), (_, after) = next(held_out_term_scores(problem, folds)), next(held_out_term_scores(other, folds))
    np.testing.assert_allclose(before[folds == 0], after[folds == 0], atol=1e-3)  # each to the tolerance
    assert np.abs(before[folds == 1] - after[folds == 1]).max() > 0.01


def make_table(task, *, telling=0.0, count=160, seed=0):
    """A table whose features tell as much as asked, and whose texts tell the kind; with dataset and splits."""
    texts, kinds = write_texts(count, seed=seed)
    random = np.random.default_rng(seed)
    features = random.standard_normal((count, 6)).astype(np.float32)
    features[:, 0] += telling * (2 * kinds - 1)
    ids = tuple(str(number) for number in range(count))
    samples = []
    for id_, text, kind in zip(ids, texts, kinds, strict=True):
        match task:
            case "single":
                samples.append(Sample(id=id_, item=text, labels=(("bored", "pleased")[kind],)))
            case "multi":
                samples.append(Sample(id=id_, item=text, labels=("any", "pleased") if kind else ("bored",)))
            case "value":
                samples.append(Sample(id=id_, item=text, value=100.0 + 10 * kind + float(random.normal())))
    labels = {"single": ("bored", "pleased"), "multi": ("any", "bored", "pleased"), "value": ()}[task]
    dataset = Dataset(samples=tuple(samples), labels=labels, task=task, modality="text", source="made")
    table = FakeTable(ids, features, count_terms(zip(ids, texts, strict=True)))
    splits = Splits(train=ids[: count * 3 // 4], test=ids[count * 3 // 4 :])
    return table, dataset, splits, labels


class FakeSpec:
    """One block of six columns."""

    width = 6

    def widths(self, block):
        return (6,)

    def network_widths(self, block):
        return None


class FakeTable:
    """What a floor asks of a table of features."""

    def __init__(self, ids, vectors, terms):
        self.ids, self.vectors, self.spec, self.terms = ids, vectors, FakeSpec(), terms

    def features(self, block="last", ids=None):
        rows = {id_: row for row, id_ in enumerate(self.ids)}
        return self.vectors if ids is None else self.vectors[[rows[id_] for id_ in ids]]


def asked(floor):
    (found,) = [asked for asked in floor.choices if asked["question"] == QUESTION]
    return found


@pytest.mark.parametrize("task", ["single", "multi", "value"])
@pytest.mark.parametrize("telling", [0.0, 1.0, 6.0])
def test_a_floor_with_terms_is_as_good_as_the_better_side(task, telling):
    table, dataset, splits, labels = make_table(task, telling=telling)
    plan = FloorPlan(balance="auto", seed=0)
    floor = find_floor(table, dataset, splits, labels, plan)
    alone = find_floor(table, dataset, splits, labels, replace(plan, classical=False))
    told = asked(floor)
    assert {candidate["name"] for candidate in told["candidates"]} == {"terms", "backbone", "both"}
    assert "pretrained part is worth" in told["reason"]
    assert floor.network_alone.terms is None
    np.testing.assert_array_equal(floor.network_alone.head.weight, alone.head.weight)
    truth = np.array([int(id_) % 2 for id_ in splits.test])
    answers, weaker = (each.answers_to(table, splits.test, task) for each in (floor, alone))
    if task == "value":
        error, worse = (np.abs(each[:, 0] - 100 - 10 * truth).mean() for each in (answers, weaker))
        assert error < min(2.5, worse + 0.5)
        return
    said = answers.argmax(axis=1) if task == "single" else answers[:, 2] > 0.5
    assert (said == truth).mean() > 0.9
    assert (answers > 0).all() and (answers < 1).all()


def test_features_that_tell_all_leave_terms_that_tell_nothing_out():
    table, dataset, splits, labels = make_table("single", telling=1.0, count=600)
    shuffled = np.random.default_rng(1).permutation([sample.item for sample in dataset.samples])
    table.terms = count_terms(zip(table.ids, shuffled, strict=True))
    floor = find_floor(table, dataset, splits, labels, FloorPlan(balance="none", seed=0))
    assert asked(floor)["kept"] == "backbone"
    assert floor.terms is None
    assert floor.network_alone is floor


@pytest.mark.parametrize("task", ["single", "multi", "value"])
def test_of_few_texts_terms_that_tell_nothing_have_no_part(task):
    left_out = []
    for seed in range(12):
        table, dataset, splits, labels = make_table(task, telling=0.5, count=40, seed=seed)
        shuffled = np.random.default_rng(seed).permutation([sample.item for sample in dataset.samples])
        table.terms = count_terms(zip(table.ids, shuffled, strict=True))
        told = asked(find_floor(table, dataset, splits, labels, FloorPlan(balance="none", seed=0)))
        left_out.append(told["kept"] == "backbone")
    assert sum(left_out) >= 9


def test_the_contest_is_the_same_each_time_and_sees_no_test_text():
    table, dataset, splits, labels = make_table("single", telling=1.0)
    plan = FloorPlan(balance="auto", seed=3)
    first, again = (find_floor(table, dataset, splits, labels, plan) for _ in range(2))
    np.testing.assert_array_equal(first.terms.weight, again.terms.weight)
    texts = [sample.item if sample.id in splits.train else "zebra quagga okapi" for sample in dataset.samples]
    table.terms = count_terms(zip(table.ids, texts, strict=True))
    blind = find_floor(table, dataset, splits, labels, plan)
    assert [part.terms for part in blind.terms.vocabularies] == [part.terms for part in first.terms.vocabularies]
    np.testing.assert_array_equal(first.terms.weight, blind.terms.weight)
    np.testing.assert_array_equal(first.calibration.temperatures, blind.calibration.temperatures)


def test_rare_classes_weigh_as_the_floor_has_it(monkeypatch):
    table, dataset, splits, labels = make_table("single", telling=0.5)
    kept = tuple(id_ for id_ in splits.train if int(id_) % 2 or int(id_) % 20 == 0)
    few = replace(splits, train=kept)
    problems = []

    def watch(problem, penalty):
        problems.append(problem)
        return solve_terms(problem, penalty)

    monkeypatch.setattr("headstart.select.classical.solve_terms", watch)
    for balance in ("none", "weights"):
        find_floor(table, dataset, few, labels, FloorPlan(balance=balance, seed=0))
    rare = np.array([int(id_) % 2 == 0 for id_ in kept])
    assert problems[0].weights[rare].sum() == pytest.approx(rare.sum())
    assert problems[1].weights[rare].sum() == pytest.approx(problems[1].weights[~rare].sum())
    kinds = 1 - rare.astype(int)
    rows, weights = problems[1].rotation.rows, problems[1].weights
    peer = LogisticRegression(C=2 / 0.3, tol=1e-9, max_iter=5_000).fit(rows, kinds, sample_weight=weights)
    weight, bias = solve_terms(problems[1], 0.3)
    np.testing.assert_allclose((rows @ weight + bias) @ [-1, 1], peer.decision_function(rows), atol=0.03)


def test_a_class_that_a_fold_lacks_is_allowed():
    texts, _ = write_texts(24)
    counts = counted(texts)
    targets = np.array([0] * 12 + [1] * 11 + [2])
    features = np.random.default_rng(0).standard_normal((24, 5)).astype(np.float32)
    choice = choose_head(features, targets, task="single", num_classes=3)
    entrants = Entrants(task="single", ids=counts.ids, targets=targets, num_labels=3, groups=None, weighted=False)
    blend = hold_term_contest(counts, choice, entrants)
    assert np.isfinite(blend.scores).all()


def test_a_head_on_terms_answers_texts_as_it_answers_counts():
    table, dataset, splits, labels = make_table("single", telling=1.0)
    floor = find_floor(table, dataset, splits, labels, FloorPlan(balance="none", seed=0))
    texts = [dataset.by_id[id_].item for id_ in splits.test]
    alone = floor.head.scores(table.features(floor.block, splits.test))
    np.testing.assert_allclose(alone + floor.terms.scores(texts), floor.scores(table, splits.test), atol=1e-5)


def test_terms_are_packed_the_same_each_time_and_read_back():
    table, dataset, splits, labels = make_table("single", telling=1.0)
    head = find_floor(table, dataset, splits, labels, FloorPlan(balance="none", seed=0)).terms
    packed = pack_terms(head)
    assert packed == pack_terms(head)
    again = unpack_terms(packed, 2)
    texts = [dataset.by_id[id_].item for id_ in splits.test]
    np.testing.assert_array_equal(again.scores(texts), head.scores(texts))
    with pytest.raises(ValueError, match="do not fit"):
        unpack_terms(packed, 3)
    for content in (b"[]", b"{", b'{"rules":2,"words":[],"characters":[]}', b'{"rules":1,"words":["a","a"],"characters":[]}'):
        with pytest.raises(ValueError):
            unpack_terms(packed | {"terms.json": content}, 2)
    assert isinstance(again, TermsHead)


@pytest.fixture(scope="module")
def reviews():
    texts, kinds = write_texts(120)
    return [(text, ("bored", "pleased")[kind]) for text, kind in zip(texts, kinds, strict=True)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small encoder without training, so that the terms are worth having."""
    from text_models import save_encoder

    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def fitted(reviews, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "reviews.hs"
    headstart.fit(reviews, out=folder, strategy="extract", modality="text", backbone=f"file:{tiny}")
    return folder


def test_a_fitted_model_carries_its_terms(fitted, run_python):
    files = json.loads((fitted / "headstart.json").read_text())["files"]
    assert {"terms.json", "terms.safetensors"} <= files.keys()
    report = json.loads((fitted / "report.json").read_text())
    (told,) = [choice for choice in report["choices"] if choice["question"] == QUESTION]
    assert told["kept"] in {"terms", "both"}
    assert report["summary"]["test"]["accuracy"] > 0.85
    code = f"""
import sys, headstart
model = headstart.load({str(fitted)!r})
said = model.predict(["a superb and lovely film", "the bleak and tedious story"])
assert [one.label for one in said] == ["pleased", "bored"], said
assert not {{"torch", "sklearn", "scipy", "transformers"}} & sys.modules.keys(), "prediction needs none of these"
"""
    assert run_python(code).returncode == 0


def test_without_classical_features_a_model_has_none(reviews, tiny, tmp_path):
    model = headstart.fit(
        reviews, strategy="extract", modality="text", backbone=f"file:{tiny}", classical="none", out=tmp_path / "m"
    )
    assert "terms.json" not in model.manifest.files
    assert not [choice for choice in model.report.content["choices"] if choice["question"] == QUESTION]


def test_classical_none_is_for_texts(pictures):
    with pytest.raises(SettingError, match="modality image"):
        headstart.fit(pictures, classical="none")
    with pytest.raises(SettingError, match="--classical auto"):
        headstart.fit(pictures, classical="autoo")


@pytest.mark.parametrize("damage", ["byte", "term", "weight", "unlisted"])
def test_damaged_terms_are_told(fitted, tmp_path, damage):
    copy = shutil.copytree(fitted, tmp_path / "copy.hs")
    match damage:
        case "byte":
            (copy / "terms.json").write_bytes((copy / "terms.json").read_bytes()[:-2])
        case "term":
            told = json.loads((copy / "terms.json").read_text())
            told["words"][0] = told["words"][1]
            replace_file(copy, "terms.json", json.dumps(told).encode())
        case "weight":
            tensors = load_file(copy / "terms.safetensors")
            save_file(tensors | {"weight": -tensors["weight"]}, copy / "other")
            replace_file(copy, "terms.safetensors", (copy / "other").read_bytes())
        case "unlisted":
            replace_file(copy, "terms.json", b"[]")
    with pytest.raises(ArtifactError):
        headstart.load(copy)


# Many classes


def many_classes(num_classes, per_class, *, seed=0):
    random = np.random.default_rng(seed)
    vocabulary = [f"{a}{b}" for a in "ba ko mi lu ze ra ti do".split() for b in "nor sel vim tak pol".split()]
    texts, labels = {}, []
    for label in range(num_classes):
        own = random.choice(vocabulary, 3, replace=False)
        for number in range(per_class):
            words = [*random.choice(own, 2, replace=False), f"only{label}", *random.choice(vocabulary, 5)]
            texts[f"{label}-{number}"] = " ".join(words)
            labels.append(label)
    return texts, np.array(labels)


def test_of_many_classes_kernel_ridge_regression_is_that_of_the_primal(monkeypatch):
    """Against the normal equations: rows that weigh one over their class's rows, a penalised constant."""
    from scipy import sparse

    monkeypatch.setattr(term_solver, "is_iterative_too_dear", lambda *sizes: True)
    random = np.random.default_rng(0)
    rows = sparse.csr_array(np.abs(random.normal(size=(40, 25))) * (random.random((40, 25)) < 0.3))
    labels = np.arange(40) % 7
    problem = pose_terms(rows, np.eye(7)[labels].T, np.ones(40), link="softmax")
    assert problem.gram is not None
    weight, bias = solve_terms(problem, 3.0)
    design = np.hstack([rows.toarray(), np.ones((40, 1))])
    shares = 1 / np.bincount(labels)[labels]
    expected = np.linalg.solve(
        design.T @ (design * shares[:, None]) + 3.0 * np.eye(26), design.T @ (np.eye(7)[labels] * shares[:, None])
    )
    np.testing.assert_allclose(weight, expected[:-1], atol=1e-5)
    np.testing.assert_allclose(bias, expected[-1], atol=1e-5)
    folds = np.arange(40) % 4
    for penalty, scores in held_out_term_scores(problem, folds):
        rest = subset(problem, np.flatnonzero(folds != 2))
        weight, bias = solve_terms(rest, penalty)
        np.testing.assert_allclose(scores[folds == 2], (rows @ weight + bias)[folds == 2], atol=1e-4)


def test_work_does_not_grow_faster_than_the_classes():
    """Products of a matrix in each solver: of many classes with few rows none is solved iteratively."""
    assert is_iterative_too_dear(960, 2688, 200) and is_iterative_too_dear(1200, 2688, 400)
    ordinary = [(514, 2688, 10), (1438, 1280, 10), (4800, 2688, 2), (5000, 1280, 100), (240, 2688, 80)]
    assert not any(is_iterative_too_dear(*sizes) for sizes in ordinary)


@pytest.mark.parametrize("iterative", [True, False])
def test_terms_that_answer_alone_are_calibrated(iterative, monkeypatch):
    """The scores that calibrate are in the unit of the head that is saved."""
    monkeypatch.setattr(term_solver, "is_iterative_too_dear", lambda *sizes: not iterative)
    texts, labels = many_classes(12, 8)
    ids = tuple(texts)
    counts = count_terms(texts.items())
    noise = np.random.default_rng(1).normal(size=(len(ids), 6)).astype(np.float32)
    choice = choose_head(noise, labels, task="single", num_classes=12)
    misleading = replace(choice, scores=-9.0 * np.eye(12, dtype=np.float32)[labels[choice.rows]])
    entrants = Entrants(task="single", ids=ids, targets=labels, num_labels=12, groups=None, weighted=False)
    blend = hold_term_contest(counts, misleading, entrants)
    assert blend.kept == "terms"
    assert unit_of("single", blend.scores) == pytest.approx(1.0)
    assert 0.3 < unit_of("single", term_scores(blend.terms, counts, ids)) < 5
