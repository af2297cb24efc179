"""`fit` end to end: every kind of data, what it decides, what it says, and that the saved model is the one it evaluated."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import ImageOps

import headstart
from exact import solve
from headstart.api.workplace import workplace
from headstart.errors import ArtifactError, DataError, SettingError
from headstart.records import Dataset, Sample

CLASSES = ("blobs", "checks", "rings", "stripes")


def summary_of(model):
    return model.report.content["summary"]


def choices_of(model):
    return {choice["question"]: choice for choice in model.report.content["choices"]}


def splits_of(folder):
    with (folder / "splits.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def side_of(folder):
    return {row["id"]: row["split"] for row in splits_of(folder)}


def write_table(path, rows, columns):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def labelled(pictures):
    """(path, label) of every picture, in a steady order."""
    return [(path, path.parent.name) for path in sorted(pictures.rglob("*.*"))]


@pytest.fixture(scope="module")
def drawn(draw):
    """(picture, label) pairs: 15 of each class."""
    return [(draw(label, number), label) for label in CLASSES for number in range(15)]


# What DATA may be


def test_a_folder_per_class(artifact):
    model = headstart.load(artifact)
    summary = summary_of(model)
    assert model.labels == CLASSES
    assert summary["counts"] == {"train": 96, "test": 24, "unreadable": 0, "duplicate_groups": 0}
    assert summary["test"]["accuracy"] >= 0.9
    assert summary["majority_accuracy"] == 0.25
    assert summary["warnings"] == []
    assert model.report.content["data"]["split"] == "random 80/20, seed 0"
    assert str(model.report).startswith(f"accuracy {summary['test']['accuracy']:.3f} [")
    assert {path.name for path in artifact.iterdir()} == {
        "README.md", "head.safetensors", "headstart.json", "learned.safetensors", "model.onnx", "report.html", "report.json",
        "selftest.safetensors", "splits.csv",
    }  # fmt: skip


def test_every_class_is_tested_in_its_share(artifact):
    tested = [row["label"] for row in splits_of(artifact) if row["split"] == "test"]
    assert {label: tested.count(label) for label in CLASSES} == dict.fromkeys(CLASSES, 6)


def test_the_data_s_own_split_is_kept(draw_folder, tmp_path):
    draw_folder(tmp_path / "data" / "train", per_class=10)
    draw_folder(tmp_path / "data" / "test", per_class=3, first=10)
    model = solve(tmp_path / "data")
    assert model.report.content["data"]["split"] == "the data's own test split"
    assert summary_of(model)["counts"]["test"] == 12
    assert all(side == name.split("/")[0] for name, side in side_of(model.folder).items())


def test_a_second_source_is_the_test_split(draw_folder, tmp_path):
    draw_folder(tmp_path / "data", per_class=10)
    draw_folder(tmp_path / "other", per_class=3, first=10)
    model = solve(tmp_path / "data", test=tmp_path / "other")
    assert summary_of(model)["counts"] == {"train": 40, "test": 12, "unreadable": 0, "duplicate_groups": 0}
    assert all((side == "test") == name.startswith("test/") for name, side in side_of(model.folder).items())


def test_groups_of_a_table_stay_on_one_side(pictures, tmp_path):
    rows = [(path, label, f"patient {int(path.stem) // 3}") for path, label in labelled(pictures)]
    table = write_table(tmp_path / "table.csv", rows, ["path", "label", "patient"])
    model = solve(table, group_column="patient")
    sides = {}
    for row in splits_of(model.folder):
        sides.setdefault(row["group"], set()).add(row["split"])
    assert len(sides) == 10
    assert all(len(side) == 1 for side in sides.values())
    assert set.union(*sides.values()) == {"train", "test"}
    assert model.report.content["data"]["split"] == "random 80/20 by group, seed 0"


def test_groups_across_the_data_s_own_split_are_told(pictures, tmp_path):
    rows = [
        (path, label, f"patient {int(path.stem) // 3}", "test" if int(path.stem) % 5 == 0 else "train")
        for path, label in labelled(pictures)
    ]
    table = write_table(tmp_path / "table.csv", rows, ["path", "label", "group", "split"])
    (warning,) = summary_of(solve(table))["warnings"]
    assert "6 groups of the group column lie on both sides of the data's own split" in warning
    assert "24 held-out items share groups with training items" in warning


def test_a_zip_of_a_folder(pictures, tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path, label in labelled(pictures):
            archive.write(path, f"pictures/{label}/{path.name}")
    model = solve(tmp_path / "data.zip")
    assert model.report.content["data"]["source"] == "archive data.zip"
    assert summary_of(model)["counts"]["train"] == 96
    assert summary_of(model)["cache"]["hits"] == 120  # the same content is never computed twice, wherever it lies


def test_pairs_arrays_and_frames_are_the_same_data(drawn):
    pixels = np.stack([np.asarray(picture.resize((64, 64))) for picture, _ in drawn])
    labels = [label for _, label in drawn]
    fits = [
        solve(list(zip(pixels, labels, strict=True))),
        solve((pixels, np.array(labels))),
        solve(pandas.DataFrame({"image": list(pixels), "label": labels})),
    ]
    assert [summary_of(fit)["cache"]["misses"] for fit in fits] == [60, 0, 0]
    heads = {(fit.folder / "head.safetensors").read_bytes() for fit in fits}
    assert len(heads) == 1
    assert len({(fit.folder / "splits.csv").read_bytes() for fit in fits}) == 1


def test_pictures_in_memory_are_predicted_as_in_files(drawn, tmp_path):
    model = solve(drawn)
    picture, label = drawn[0]
    picture.save(tmp_path / "picture.png")
    in_memory, in_file = model.predict([picture, tmp_path / "picture.png"])
    assert in_memory.label == in_file.label == label
    assert in_memory.probabilities == in_file.probabilities


def test_a_dataset_that_was_read_before(pictures):
    samples = tuple(Sample(id=f"{label}/{path.stem}", item=path, labels=(label,)) for path, label in labelled(pictures))
    dataset = Dataset(samples=samples, labels=CLASSES, task="single", modality="image", source="my own reader")
    model = solve(dataset)
    assert model.report.content["data"]["source"] == "my own reader"
    assert set(side_of(model.folder)) == {sample.id for sample in samples}


def test_a_multi_label_table(pictures, tmp_path):
    words = {"blobs": "soft", "checks": "straight|regular", "rings": "round|regular", "stripes": "straight|regular"}
    rows = [(path, words[label]) for path, label in labelled(pictures)]
    model = solve(write_table(tmp_path / "table.csv", rows, ["path", "label"]), out=tmp_path / "multi.hs")
    summary = summary_of(model)
    assert (summary["task"], summary["labels"]) == ("multi", ["regular", "round", "soft", "straight"])
    names = ("macro_f1", "micro_f1", "mean_average_precision")
    assert list(summary["test"]) == [key for name in names for key in (name, f"{name}_ci95")]
    for name in names:
        low, high = summary["test"][f"{name}_ci95"]
        assert 0.8 <= low <= summary["test"][name] <= high <= 1.0
    assert summary["majority_accuracy"] is None
    (prediction,) = model.predict(pictures / "rings" / "0.png")
    assert set(prediction.labels) == {"round", "regular"}
    assert set(prediction.probabilities) == set(model.labels)


def test_items_without_a_label_are_none_of_them(draw):
    pairs = [(draw("rings", number), ["round"]) for number in range(30)]
    pairs += [(draw("stripes", number), []) for number in range(30)]
    model = solve(pairs, task="multi")
    assert model.predict(draw("rings", 40))[0].labels == ("round",)
    assert model.predict(draw("stripes", 40))[0].labels == ()


def test_a_value_task(draw):
    """The darker of two patterns has the lower value: what is told must follow it."""

    def pair(number):
        picture = ImageOps.autocontrast(draw("blobs", number))
        level = number / 60
        return picture.point([int(value * (0.2 + 0.8 * level)) for value in range(256)] * 3), 10 + 5 * level

    model = solve([pair(number) for number in range(60)], task="value")
    summary = summary_of(model)
    assert list(summary["test"]) == ["mae", "mae_ci95", "rmse", "rmse_ci95", "r2", "r2_ci95"]
    assert (summary["task"], summary["labels"], summary["majority_accuracy"]) == ("value", [], None)
    assert summary["test"]["r2"] > 0.5
    for name in ("mae", "rmse", "r2"):
        low, high = summary["test"][f"{name}_ci95"]
        assert low <= summary["test"][name] <= high
    (dark,), (light,) = model.predict(pair(3)[0]), model.predict(pair(57)[0])
    assert dark.value + 1 < light.value
    assert (dark.label, dark.probabilities, dark.labels) == (None, {}, ())
    assert len(model.report.content["evaluation"]["predictions_vs_targets"]) == summary["counts"]["test"]


# How it is evaluated


def test_few_items_are_cross_validated_and_the_report_says_so(drawn):
    few = drawn[::2]
    model = solve(few)
    content = model.report.content
    assert summary_of(model)["counts"] == {"train": 30, "test": 0, "unreadable": 0, "duplicate_groups": 0}
    assert content["data"]["split"].startswith("cross-validation: only 30 samples")
    assert content["evaluation"]["basis"] == (
        "5-fold cross-validation, repeated 3 times over 30 items: an estimate, no separate test set"
    )
    assert set(side_of(model.folder).values()) == {"train"}
    page = (model.folder / "report.html").read_text()
    assert "repeated 3 times" in page and "no separate test set" in page
    assert "cross-validation" in (model.folder / "README.md").read_text()


def test_four_items_are_enough(drawn):
    model = solve([drawn[0], drawn[1], drawn[15], drawn[16]])
    assert model.report.content["evaluation"]["basis"].startswith("4-fold cross-validation, repeated 3 times over 4 items")


def test_values_of_a_few_items_are_cross_validated(drawn):
    model = solve([(picture, float(number)) for number, (picture, _) in enumerate(drawn[:10])], task="value")
    assert model.report.content["evaluation"]["basis"].startswith("5-fold cross-validation, repeated 3 times over 10 items")
    with pytest.raises(DataError, match="only 2 items to learn values from"):
        solve([(drawn[0][0], 1.0), (drawn[1][0], 2.5)], task="value")


def test_rare_classes_never_break_the_split(drawn, draw):
    """A class of three among enough others: cross-validation, and the class is named."""
    model = solve([*drawn[:48], *((draw("blobs", number), "blobs") for number in range(15, 20))])
    content = model.report.content
    assert content["data"]["split"] == "cross-validation: 1 class with fewer than 5 samples: 'stripes' (3)"
    assert any("'stripes' (3)" in warning and "cross-validated" in warning for warning in summary_of(model)["warnings"])
    (rare,) = (row for row in content["evaluation"]["per_class"] if row["label"] == "stripes")
    assert rare["support"] == 3


def test_a_class_of_one_sample_is_an_error_that_says_what_to_do(drawn, tmp_path):
    with pytest.raises(DataError) as error:
        solve(drawn[:46], out=tmp_path / "out.hs")
    assert error.value.what == "1 class with one sample only: 'stripes'."
    assert "at least two samples in every class" in error.value.expected
    assert "add at least one more sample" in error.value.mend and "--merge-labels" in error.value.mend
    assert list(tmp_path.iterdir()) == []


def test_merging_mends_a_class_of_one(drawn):
    model = solve(drawn[:46], merge_labels={"stripes": "rings"})
    assert model.labels == ("blobs", "checks", "rings")


def test_data_in_which_nothing_can_be_held_out_say_so(drawn):
    one, other = drawn[0][0], drawn[15][0]
    with pytest.raises(DataError, match="nothing can be held out of the 60 items"):
        solve([(one, "a")] * 30 + [(other, "b")] * 30)


def test_duplicates_stay_on_one_side(pictures, tmp_path):
    """Every fifth picture lies there twice, and saved anew a third time; no copy may be tested that was trained on."""
    data = shutil.copytree(pictures, tmp_path / "data")
    for label in CLASSES:
        for number in range(1, 30, 5):
            kind = "jpg" if number % 3 else "png"
            shutil.copy(data / label / f"{number}.{kind}", data / label / f"copy of {number}.{kind}")
    model = solve(data)
    summary, sides = summary_of(model), side_of(model.folder)
    assert summary["counts"]["duplicate_groups"] >= 24
    assert any("24 groups of exact copies" in warning for warning in summary["warnings"])
    for name, side in sides.items():
        if "copy of " in name:
            assert side == sides[name.replace("copy of ", "")]
    assert "test" in {side for name, side in sides.items() if "copy of " in name}


def test_near_duplicates_stay_on_one_side(pictures, draw, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    for label in CLASSES:
        for number in range(0, 30, 3):
            draw(label, number).save(data / label / f"anew {number}.jpg", quality=92)
    model = solve(data)
    sides = side_of(model.folder)
    (finding,) = (each for each in model.report.content["data"]["findings"] if each["kind"] == "near_duplicate")
    assert "0.85" in finding["message"]
    alike = {(f"{label}/{number}.png", f"{label}/anew {number}.jpg") for label in CLASSES for number in range(0, 30, 3)}
    found = [(one, other) for one, other in alike if {one, other} <= set(finding["items"])]
    assert len(found) >= 20
    assert all(sides[one] == sides[other] for one, other in found)


@pytest.fixture(scope="module")
def leaking(pictures, tmp_path_factory):
    """A fit on an official split of which half of the test items are copies of train items."""
    folder = tmp_path_factory.mktemp("leak")
    rows = []
    for path, label in labelled(pictures):
        number = int(path.stem)
        if number < 20:
            rows.append((path, label, "train"))
        if number < 5:
            copy = folder / f"{label}-{number}{path.suffix}"
            shutil.copy(path, copy)
            rows.append((copy, label, "test"))
        if number >= 25:
            # Half of the honest test items are mislabelled, so that the leak shows in the score.
            rows.append((path, label if number % 2 else "blobs", "test"))
    table = write_table(folder / "table.csv", rows, ["path", "label", "split"])
    return solve(table, out=folder / "leak.hs")


def test_a_split_that_leaks_is_reported_with_both_scores(leaking):
    evaluation, summary = leaking.report.content["evaluation"], summary_of(leaking)
    clean = evaluation["without_leaks"]
    assert (summary["counts"]["test"], clean["leaks"]) == (40, 20)
    assert clean["accuracy"] < summary["test"]["accuracy"]
    (warning,) = (told for told in summary["warnings"] if "copies of training items" in told and told.startswith("of the"))
    assert warning.startswith(
        f"of the 40 test items 20 are copies of training items: accuracy {summary['test']['accuracy']:.3f} with"
    )
    assert f"{clean['accuracy']:.3f} [" in warning
    assert any("lie on both sides of the data's own split" in told for told in summary["warnings"])
    page = (leaking.folder / "report.html").read_text()
    assert "of the 40 test items 20 are copies of training items" in page and f"{clean['accuracy']:.3f} [" in page


def test_the_score_without_leaks_is_that_of_the_other_items(leaking, pictures):
    rows = [row for row in splits_of(leaking.folder) if row["split"] == "test" and Path(row["item"]).parent.name in CLASSES]
    predictions = leaking.predict([pictures / row["item"] for row in rows])
    right = [prediction.label == row["label"] for prediction, row in zip(predictions, rows, strict=True)]
    assert len(rows) == 20
    assert np.mean(right) == leaking.report.content["evaluation"]["without_leaks"]["accuracy"]


def test_shuffled_labels_are_no_better_than_chance_and_the_model_knows(pictures):
    paths, labels = zip(*labelled(pictures), strict=True)
    shuffled = np.random.default_rng(0).permutation(labels).tolist()
    model = solve(list(zip(paths, shuffled, strict=True)))
    summary = summary_of(model)
    (warning,) = summary["warnings"]
    assert warning.startswith("no better than always answering") and "check preprocessing and labels" in warning
    predictions = model.predict([pictures / row["item"] for row in splits_of(model.folder) if row["split"] == "test"])
    assert max(prediction.probability for prediction in predictions) < 0.45  # of four classes alike
    assert summary["test"]["log_loss"] == pytest.approx(np.log(4), abs=0.1)


def test_an_honest_fit_is_calibrated_by_its_own_account(artifact):
    test = summary_of(headstart.load(artifact))["test"]
    low, high = test["ece_ci95"]
    assert low <= test["ece"] <= high
    assert test["ece"] < 0.25


def test_the_saved_network_answers_as_the_evaluated_head(artifact, pictures, tmp_path):
    """Every metric of the report, computed again by the other door from the saved network and the test pictures."""
    for row in splits_of(artifact):
        if row["split"] == "test":
            place = tmp_path / row["label"] / Path(row["item"]).name
            place.parent.mkdir(exist_ok=True)
            shutil.copy(pictures / row["id"], place)
    again, summary = headstart.evaluate(artifact, tmp_path), summary_of(headstart.load(artifact))
    assert again.num_items == summary["counts"]["test"]
    for name, value in again.metrics.items():
        assert value == pytest.approx(summary["test"][name], abs=2e-3), name
    assert again.metrics["accuracy"] == summary["test"]["accuracy"]


# What the labels are


def test_ten_does_not_sort_before_two(pictures, draw, tmp_path):
    names = {"10": "rings", "2": "checks", "1": "blobs"}
    for number, label in names.items():
        shutil.copytree(pictures / label, tmp_path / "data" / number)
    model = solve(tmp_path / "data", out=tmp_path / "out.hs")
    assert model.labels == ("1", "2", "10")
    assert json.loads((tmp_path / "out.hs" / "headstart.json").read_text())["labels"] == ["1", "2", "10"]
    for number, label in names.items():
        assert model.predict(draw(label, 40))[0].label == number


def test_whole_numbers_are_labels_and_stay_in_order(drawn):
    numbers = {"blobs": 10, "checks": 9, "rings": 2, "stripes": 100}
    model = solve([(picture, numbers[label]) for picture, label in drawn])
    assert model.labels == ("2", "9", "10", "100")
    assert [model.predict(picture)[0].label for picture, _ in drawn[::15]] == ["10", "9", "2", "100"]


def test_unknown_test_label_is_an_error_that_names_it(draw_folder, draw, tmp_path):
    draw_folder(tmp_path / "data" / "train", per_class=6)
    draw_folder(tmp_path / "data" / "test", per_class=2, first=6)
    (tmp_path / "data" / "test" / "spirals").mkdir()
    draw("rings", 90).save(tmp_path / "data" / "test" / "spirals" / "1.png")
    with pytest.raises(DataError, match="1 label of the test split that nothing in train has: 'spirals' \\(1 sample\\)"):
        solve(tmp_path / "data")
    with pytest.raises(DataError, match="no item to learn from has: 'spirals' \\(1 item\\)"):
        solve(tmp_path / "data" / "train", test=tmp_path / "data" / "test")


def test_a_class_that_is_missing_from_the_test_split_shifts_nothing(draw_folder, tmp_path):
    draw_folder(tmp_path / "data" / "train", per_class=8)
    draw_folder(tmp_path / "data" / "test", per_class=3, first=8, classes=("checks", "stripes"))
    model = solve(tmp_path / "data")
    assert model.labels == CLASSES
    assert summary_of(model)["test"]["accuracy"] == 1.0
    assert any("in train but not in the test split: 'blobs', 'rings'" in told for told in summary_of(model)["warnings"])


# Items that cannot be used


def test_bad_files_are_listed_by_name_and_nothing_is_substituted(pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    (data / "blobs" / "0.png").write_bytes(b"")
    (data / "rings" / "1.jpg").write_bytes((data / "rings" / "2.jpg").read_bytes()[:900])
    (data / "stripes" / "4.jpg").write_text("no picture")
    model = solve(data, out=tmp_path / "out.hs")
    summary = summary_of(model)
    assert summary["counts"] == {"train": 93, "test": 24, "unreadable": 3, "duplicate_groups": 0}
    bad = ["blobs/0.png", "rings/1.jpg", "stripes/4.jpg"]
    assert not set(bad) & set(side_of(model.folder))
    told = [finding for finding in model.report.content["data"]["findings"] if finding["severity"] == "warning"]
    assert sorted(item for finding in told for item in finding["items"]) == bad
    assert {finding["kind"] for finding in told} == {"empty", "truncated", "unreadable"}
    page = (tmp_path / "out.hs" / "report.html").read_text()
    assert all(name in page for name in bad)


def test_items_that_vanish_while_they_are_read_are_named(draw_folder, tmp_path):
    data = draw_folder(tmp_path / "data", per_class=20, first=300)
    gone = [data / "stripes" / "316.jpg", data / "stripes" / "319.jpg"]

    def watch(step, done, total):
        assert (step, total) == ("features", 80)
        for path in gone:
            path.unlink(missing_ok=True)

    model = solve(data, out=tmp_path / "out.hs", progress=watch)
    assert summary_of(model)["counts"] == {"train": 62, "test": 16, "unreadable": 2, "duplicate_groups": 0}
    (warning,) = summary_of(model)["warnings"]
    assert "stripes/316.jpg (there is no such file)" in warning and "stripes/319.jpg" in warning


def test_a_class_that_vanishes_altogether_is_left_out(draw_folder, tmp_path):
    """Whole batches hold nothing to compute then."""
    data = draw_folder(tmp_path / "data", per_class=20, first=330)
    model = solve(data, progress=lambda *_: shutil.rmtree(data / "stripes", ignore_errors=True))
    assert model.labels == CLASSES[:3]
    assert summary_of(model)["counts"]["unreadable"] == 20
    assert any("1 class with no item that can be read: 'stripes'" in told for told in summary_of(model)["warnings"])


def test_items_that_are_not_there_at_all(tmp_path):
    with pytest.raises(DataError, match="none of the 40 items .* exists"):
        solve([(tmp_path / "none" / f"{number}.jpg", "ab"[number % 2]) for number in range(40)])


def test_items_that_vanish_after_they_were_read_cost_only_their_pictures(draw_folder, tmp_path):
    """Everything is computed by then; the thumbnails, golden items and the last comparison do without them."""
    data = draw_folder(tmp_path / "data", per_class=15, first=360)

    def watch(step, done, total):
        if done == total:
            shutil.rmtree(data, ignore_errors=True)

    model = solve(data, out=tmp_path / "out.hs", progress=watch)
    assert summary_of(model)["counts"]["test"] == 12
    assert headstart.load(tmp_path / "out.hs").labels == CLASSES


# The options


def test_same_seed_same_bytes(pictures, run_python, tmp_path):
    """In this process and in another, whatever the order of sets; another seed gives another split."""
    code = "import sys, headstart\nheadstart.fit(sys.argv[1], out=sys.argv[2], strategy='extract', seed=7)\n"
    process = run_python(code, pictures, tmp_path / "1.hs", PYTHONHASHSEED="12345")
    assert process.returncode == 0, process.stderr
    solve(pictures, out=tmp_path / "2.hs", seed=7)
    solve(pictures, out=tmp_path / "other.hs", seed=8)
    for name in ("head.safetensors", "splits.csv", "model.onnx", "selftest.safetensors"):
        contents = {(tmp_path / f"{number}.hs" / name).read_bytes() for number in (1, 2)}
        assert len(contents) == 1, name
        if name in {"head.safetensors", "splits.csv"}:
            assert (tmp_path / "other.hs" / name).read_bytes() not in contents
    assert json.loads((tmp_path / "other.hs" / "headstart.json").read_text())["settings"]["seed"] == 8


def test_the_split_does_not_depend_on_the_order_of_the_rows(pictures, tmp_path):
    rows = labelled(pictures)
    for name, ordered in (("one", rows), ("other", rows[::-1])):
        write_table(tmp_path / f"{name}.csv", ordered, ["path", "label"])
    one, other = (solve(tmp_path / f"{name}.csv") for name in ("one", "other"))
    assert side_of(one.folder) == side_of(other.folder)


@pytest.fixture(scope="module")
def lopsided(draw):
    """Fifty-five pictures of one class, six of the other, hard to tell apart: both are patches of the same blobs."""
    pairs = [(draw("blobs", number), "common") for number in range(55)]
    return pairs + [(draw("blobs", number), "rare") for number in range(60, 66)]


def test_balance_weights_change_the_head_and_are_recorded(draw):
    pairs = [(draw(label, number), "common") for label in ("blobs", "rings") for number in range(20)]
    pairs += [(draw(label, number), "rare") for label in ("checks", "stripes") for number in range(7)]
    plain, weighted = (solve(pairs, balance=balance) for balance in ("none", "weights"))
    assert (plain.folder / "head.safetensors").read_bytes() != (weighted.folder / "head.safetensors").read_bytes()
    assert choices_of(weighted)["class weights"]["kept"] == "weights"
    assert "class weights" not in choices_of(plain)
    for model, balance in ((plain, "none"), (weighted, "weights")):
        assert model.manifest.settings["balance"] == balance
        assert "macro_f1" in summary_of(model)["test"]


def test_balance_auto_asks_the_data_where_one_class_is_ten_times_another(lopsided):
    model = solve([*lopsided[:50], *lopsided[-5:]])
    asked = choices_of(model)["class weights"]
    assert {candidate["name"] for candidate in asked["candidates"]} == {"none", "weights"}
    assert asked["kept"] in {"none", "weights"} and "macro-F1" in asked["reason"]
    assert any("10 times the smallest" in warning for warning in summary_of(model)["warnings"])


def test_balance_weights_are_refused_where_there_are_no_classes(drawn):
    for pairs, task in (
        ([(picture, [label, "all"]) for picture, label in drawn], "multi"),
        ([(picture, float(len(label))) for picture, label in drawn], "value"),
    ):
        with pytest.raises(SettingError, match=f"balance is 'weights', and the task is {task}"):
            solve(pairs, task=task, balance="weights")


def test_a_budget_asks_for_mirror_images(artifact, pictures):
    model = solve(pictures, budget="10m")
    asked = choices_of(model)["views"]
    assert [candidate["name"] for candidate in asked["candidates"]] == ["as they are", "with their mirror images"]
    assert asked["kept"] in {candidate["name"] for candidate in asked["candidates"]}
    assert "views" not in choices_of(headstart.load(artifact))
    assert "views" not in choices_of(solve(pictures, budget="0.1s"))


def test_mirror_images_that_pay_are_in_the_network(pictures, monkeypatch, tmp_path):
    """Then the saved network looks at each picture twice, and says the same of a picture and its mirror image."""
    monkeypatch.setattr("headstart.api.views.better", lambda challenger, holder: (True, "said so"))
    model = solve(pictures, budget=600, out=tmp_path / "out.hs")
    assert choices_of(model)["views"]["kept"] == "with their mirror images"
    assert model.manifest.views == ("", "flip")
    plain = model.preprocess.pixels(pictures / "checks" / "0.png", name="0.png")
    both = (np.ascontiguousarray(each) for each in (plain, plain[:, ::-1]))
    one, other = (model.run(model.preprocess.collate([each]), [each]) for each in both)
    np.testing.assert_allclose(one, other, atol=1e-5)
    rows = [row for row in splits_of(model.folder) if row["split"] == "test"]
    predictions = model.predict([pictures / row["item"] for row in rows])
    right = np.mean([prediction.label == row["label"] for prediction, row in zip(predictions, rows, strict=True)])
    assert right == summary_of(model)["test"]["accuracy"]


@pytest.mark.parametrize("geometry", ["crop", "pad", "squash"])
def test_a_geometry_that_is_asked_for_is_used_and_saved(drawn, geometry):
    model = solve(drawn, geometry=geometry)
    assert model.preprocess.geometry == model.manifest.preprocess["geometry"] == geometry
    assert choices_of(model)["image geometry"] == {
        "question": "image geometry", "kept": geometry, "reason": "as asked", "candidates": []
    }  # fmt: skip


def test_the_options_are_saved_with_the_model(artifact):
    settings = json.loads((artifact / "headstart.json").read_text())["settings"]
    assert settings == {
        "modality": "auto", "task": "auto", "backbone": "auto", "strategy": "extract", "balance": "auto", "head": "auto",
        "geometry": "auto", "image_size": None, "budget": None, "seed": 0, "item_column": None, "label_column": None,
        "group_column": None, "split_column": None, "merge_labels": [], "epochs": None, "batch_size": None,
        "learning_rate": None, "find_learning_rate": False, "tuning": [], "resume": False, "hidden": None, "dropout": None,
        "classical": "auto", "context": None, "precision": "auto", "encoding": None, "item_root": None, "label_columns": None,
        "label_names": None, "label_separator": None,
    }  # fmt: skip


# Where it is written


def test_without_out_the_model_lives_as_long_as_the_object_and_can_be_saved(drawn, tmp_path):
    model = solve(drawn)
    place = model.folder
    assert place.is_dir()
    model.save(tmp_path / "kept.hs")
    del model
    assert not place.exists()
    assert headstart.load(tmp_path / "kept.hs").labels == CLASSES


def test_an_older_model_is_replaced_whole(drawn, tmp_path):
    out = tmp_path / "out.hs"
    solve(drawn, out=out)
    model = solve(drawn, out=out, merge_labels={"checks": "stripes"}, overwrite=True)
    assert model.folder == out
    assert headstart.load(out).labels == ("blobs", "rings", "stripes")
    assert [path.name for path in tmp_path.iterdir()] == ["out.hs"]
    assert {path.name for path in out.iterdir()} == {*model.manifest.files, "headstart.json"}


def test_a_link_to_a_model_is_replaced_and_the_model_stays(artifact, drawn, tmp_path):
    headstart.load(artifact).save(tmp_path / "real.hs")
    before = (tmp_path / "real.hs" / "headstart.json").read_bytes()
    (tmp_path / "link.hs").symlink_to("real.hs")
    for _ in range(2):
        solve(drawn, out=tmp_path / "link.hs", seed=1, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.hs", "real.hs"]
    assert (tmp_path / "real.hs" / "headstart.json").read_bytes() == before
    assert headstart.load(tmp_path / "link.hs").manifest.settings["seed"] == 1


def test_a_model_beside_the_classes_is_no_class(pictures, tmp_path, monkeypatch):
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        model = solve(".", out="model.hs", overwrite=True)
        assert model.labels == CLASSES
        assert summary_of(model)["warnings"] == []


def test_an_error_leaves_the_older_model_as_it_is(artifact, drawn, tmp_path):
    out = shutil.copytree(artifact, tmp_path / "out.hs")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError):
        solve(drawn[:1], out=out, overwrite=True)
    with pytest.raises(SettingError):
        solve(drawn, out=out, balance="heavy", overwrite=True)
    with pytest.raises(ArtifactError):
        solve(drawn, out=out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.hs"]
    headstart.load(out)


def test_what_fails_while_it_moves_into_place_puts_the_older_model_back(artifact, drawn, tmp_path, monkeypatch):
    out = shutil.copytree(artifact, tmp_path / "out.hs")
    before = (out / "headstart.json").read_bytes()
    rename = Path.rename

    def fail(self, target):
        if self.suffix == ".partial":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(headstart.HeadstartError, match="cannot be written: No space left on device"):
        solve(drawn, out=out, seed=3, overwrite=True)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["out.hs"]
    assert (out / "headstart.json").read_bytes() == before


def test_two_fits_to_one_place_do_not_undo_each_other(drawn, tmp_path):
    out = tmp_path / "out.hs"
    with workplace(out, resume=False) as folder:
        (folder / "history.csv").write_text("epoch\n")
        with pytest.raises(ArtifactError, match=r"another fit is at work in .*out\.hs\.partial") as caught:
            solve(drawn, out=out)
        assert "name another --out" in str(caught.value)
        assert (folder / "history.csv").read_text() == "epoch\n"
    solve(drawn, out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.hs"]


# The words of an option from Python


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("seed", "x", "seed is 'x', of type str"),
        ("seed", 1.5, "seed is 1.5, of type float"),
        ("seed", True, "seed is True, of type bool"),
        ("seed", -1, "seed is -1"),
        ("image_size", "64", "image_size is '64', of type str"),
        ("image_size", 20, "image_size is 20"),
        ("backbone", 3, "backbone is 3, of type int"),
        ("label_column", ["label"], "label_column is \\['label'\\], of type list"),
        ("merge_labels", "a=b", "merge_labels is 'a=b', of type str"),
        ("budget", "soon", "budget is 'soon'"),
        ("budget", -3, "budget is -3"),
        ("budget", 0, "budget is 0, no time at all"),
        ("epochs", 0, "epochs is 0"),
        ("balence", "auto", "fit has no option 'balence'"),
        ("task", "singel", "task is 'singel'"),
        ("geometry", "stretch", "geometry is 'stretch'"),
        ("head", "deep", "head is 'deep'"),
        ("strategy", "first:2", "strategy is 'first:2'"),
        ("modality", "video", "modality is 'video'"),
    ],
)
def test_an_option_that_cannot_be_is_named(tmp_path, option, value, told):
    with pytest.raises(SettingError, match=f"^{told}") as error:
        solve(tmp_path / "nothing is read", out=tmp_path / "out.hs", **{option: value})
    assert error.value.expected and error.value.mend
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_spelling_is_told(tmp_path):
    with pytest.raises(SettingError) as error:
        solve(tmp_path, balence="auto")
    assert error.value.mend == "did you mean 'balance'?"
    with pytest.raises(SettingError) as error:
        solve(tmp_path, task="singel")
    assert error.value.mend == "--task single"


def test_numbers_of_numpy_are_numbers(drawn):
    model = solve(drawn, seed=np.int64(4))
    assert model.manifest.settings["seed"] == 4


@pytest.mark.parametrize("data", ["", "   "])
def test_an_empty_path_is_not_the_current_folder(data):
    with pytest.raises(DataError, match="the path of the data is empty"):
        solve(data)
