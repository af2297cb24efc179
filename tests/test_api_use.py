"""A saved model and the features in use: predict, evaluate, check, embed, and the page written again."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import headstart
from headstart.api.use import embed_to_file, rewrite_report
from headstart.errors import ArtifactError, DataError, SettingError

CLASSES = ("blobs", "checks", "rings", "stripes")


def write_table(path, rows, columns):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


# Predict


def test_every_kind_of_item_gets_the_same_answer(model, draw, as_bytes, tmp_path):
    picture = draw("checks", 50)
    picture.save(tmp_path / "picture.png")
    items = [picture, np.asarray(picture), as_bytes(picture), tmp_path / "picture.png", str(tmp_path / "picture.png")]
    predictions = model.predict(items)
    assert {prediction.label for prediction in predictions} == {"checks"}
    assert all(prediction.probabilities == predictions[0].probabilities for prediction in predictions)
    assert [model.predict(item)[0].probabilities for item in items] == [predictions[0].probabilities] * len(items)


def test_an_answer_does_not_depend_on_its_neighbours(model, pictures):
    """Alone or among others, in any order: the probabilities of an item are its own."""
    paths = sorted(pictures.rglob("*.jpg"))[:25]
    together = {each.item: each.probabilities for each in model.predict(paths)}
    turned = {each.item: each.probabilities for each in model.predict(paths[::-1])}
    for path in paths[::6]:
        alone = model.predict(path)[0].probabilities
        for other in (together[str(path)], turned[str(path)]):
            assert alone == pytest.approx(other, abs=1e-5)


def test_probabilities_are_ordered_and_sum_to_one(model, draw):
    (prediction,) = model.predict(draw("rings", 60))
    values = list(prediction.probabilities.values())
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert (prediction.label, prediction.probability) == (next(iter(prediction.probabilities)), values[0])
    assert set(prediction.probabilities) == set(CLASSES)


def test_folders_are_opened_up_in_order_and_other_files_are_left_alone(model, draw, tmp_path):
    for name in ("b/2.png", "b/1.png", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        draw("rings", 61).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    told = [prediction.item for prediction in model.predict(tmp_path)]
    assert told == [str(tmp_path / name) for name in ("a.png", "b/1.png", "b/2.png")]


def test_unreadable_items_are_all_named_and_can_be_skipped(model, draw, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    items = [draw("rings", 62), tmp_path / "broken.jpg", tmp_path / "absent.jpg", b"nothing"]
    with pytest.raises(DataError, match="3 items cannot be read") as error:
        model.predict(items)
    assert all(name in error.value.what for name in ("broken.jpg", "absent.jpg: there is no such file", "3: "))
    (prediction,) = model.predict(items, unreadable="skip")
    assert prediction.label == "rings"


@pytest.mark.parametrize("items", [[], ()])
def test_no_item_is_an_error(model, items):
    with pytest.raises(DataError, match="there is no item to predict"):
        model.predict(items)


def test_a_picture_in_another_mode_is_no_other_picture(model, draw):
    """The one way in: grey, palette and transparent pictures go through what training pictures went through."""
    picture = draw("stripes", 70).convert("L")
    same = [picture, picture.convert("RGB"), picture.convert("RGBA"), picture.convert("LA")]
    first, *others = (prediction.probabilities for prediction in model.predict(same))
    assert all(other == first for other in others)


# Evaluate


def test_evaluate_takes_the_test_split_where_the_data_has_one(artifact, draw_folder, tmp_path):
    draw_folder(tmp_path / "train", per_class=2, first=50)
    draw_folder(tmp_path / "test", per_class=3, first=60)
    evaluation = headstart.evaluate(artifact, tmp_path)
    assert (evaluation.num_items, evaluation.basis) == (12, "12 items")


def test_evaluate_counts_what_predict_says(model, draw_folder, tmp_path):
    data = draw_folder(tmp_path / "data", per_class=4, first=70)
    shutil.move(data / "rings" / "70.jpg", data / "blobs" / "mislabelled.jpg")
    evaluation = headstart.evaluate(model, data)
    paths = sorted(data.rglob("*.*"))
    right = [prediction.label == path.parent.name for prediction, path in zip(model.predict(paths), paths, strict=True)]
    assert evaluation.metrics["accuracy"] == np.mean(right) < 1
    assert evaluation.labels == CLASSES
    assert evaluation.confusion.sum() == 16


def test_evaluate_takes_items_of_one_class(model, draw_folder, tmp_path):
    """A folder with nothing but rings is no data to learn from, and quite enough to be scored on."""
    evaluation = headstart.evaluate(model, draw_folder(tmp_path / "data", per_class=5, first=80, classes=("rings",)))
    assert (evaluation.num_items, evaluation.metrics["accuracy"]) == (5, 1.0)
    with pytest.raises(DataError, match="are of one class: 'rings'"):
        headstart.fit(tmp_path / "data")


def test_evaluate_by_columns(model, pictures, tmp_path):
    rows = [(path, path.parent.name, "x") for path in sorted(pictures.rglob("*.png"))]
    table = write_table(tmp_path / "table.csv", rows, ["where", "what", "label"])
    evaluation = headstart.evaluate(model, table, item_column="where", label_column="what")
    assert evaluation.num_items == 40
    with pytest.raises(DataError, match="labels that the model does not know: 'x'"):
        headstart.evaluate(model, table, item_column="where")


def test_evaluate_names_labels_the_model_does_not_know(model, draw_folder, tmp_path):
    data = draw_folder(tmp_path / "data", per_class=2, first=70)
    (data / "rings").rename(data / "circles")
    with pytest.raises(DataError, match="labels that the model does not know: 'circles'") as error:
        headstart.evaluate(model, data)
    assert "'blobs', 'checks', 'rings', 'stripes'" in error.value.expected


def test_evaluate_names_items_it_cannot_read_and_leaves_them_out(model, draw_folder, tmp_path):
    data = draw_folder(tmp_path / "data", per_class=2, first=70)
    (data / "rings" / "70.jpg").write_bytes(b"")
    evaluation = headstart.evaluate(model, data)
    assert evaluation.num_items == 7
    assert any("1 item cannot be read:\n  - rings/70.jpg: " in warning for warning in evaluation.warnings)
    for path in data.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="8 items cannot be read"):
        headstart.evaluate(model, data)


def test_evaluate_says_which_items_the_model_learned_from(model, pictures, draw_folder, tmp_path):
    """By content: under other names, and among others, they are known again."""
    data = draw_folder(tmp_path / "data", per_class=3, first=90)
    with (model.folder / "splits.csv").open(newline="") as file:
        learned = [row["id"] for row in csv.DictReader(file) if row["split"] == "train"][::20]
    for number, name in enumerate(learned):
        shutil.copy(pictures / name, data / name.split("/")[0] / f"renamed {number}{Path(name).suffix}")
    evaluation = headstart.evaluate(model, data)
    assert evaluation.num_items == 12 + len(learned) == 17
    new = headstart.evaluate(model, draw_folder(tmp_path / "new", per_class=3, first=90))
    told = f"{new.metrics['accuracy']:.3f}"
    assert "the model learned from 5 of these 17 items" in evaluation.warnings[0]
    assert f"on the 12 others: accuracy {told}" in evaluation.warnings[0]
    assert not any("learned" in warning for warning in new.warnings)


# Check


def test_check_finds_nothing_in_sound_data(pictures):
    assert headstart.check(pictures) == []


def test_check_finds_everything_at_once(pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    shutil.copy(data / "rings" / "1.jpg", data / "rings" / "copy.jpg")
    shutil.copy(data / "rings" / "2.jpg", data / "blobs" / "conflict.jpg")
    (data / "checks" / "1.jpg").write_bytes(b"")
    (data / "stripes" / "2.jpg").write_bytes((data / "stripes" / "1.jpg").read_bytes()[:700])
    (data / "Rings").mkdir()
    shutil.copy(data / "rings" / "4.jpg", data / "Rings" / "alone.jpg")
    findings = headstart.check(data)
    found = {finding.kind: finding for finding in findings}
    assert set(found) == {
        "tiny_class", "case_clash", "duplicate", "empty", "imbalance", "label_conflict", "truncated"
    }  # fmt: skip
    assert [finding.severity for finding in findings] == ["error"] + ["warning"] * (len(findings) - 1)
    assert found["tiny_class"].items == ("Rings/alone.jpg",)
    assert found["case_clash"].mend == "--merge-labels Rings=rings"
    assert found["empty"].items == ("checks/1.jpg",)
    assert {"rings/1.jpg", "rings/copy.jpg", "blobs/conflict.jpg"} <= set(found["duplicate"].items)
    assert "blobs/conflict.jpg" in found["label_conflict"].items
    assert all(finding.message and finding.mend for finding in findings)


def test_check_finds_what_leaks_into_a_second_source(pictures, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(pictures / "rings", other / "rings")
    kinds = {finding.kind: finding for finding in headstart.check(pictures, test=other)}
    assert set(kinds) == {"duplicate", "leak", "split_mismatch"}
    assert "30 held-out items are copies of training items" in kinds["leak"].message


# Embed


def test_embed_gives_a_row_for_each_item(pictures):
    table = headstart.embed(pictures)
    assert table.features().shape == (120, 1280)
    assert len(table.ids) == 120 and table.failures == {}
    assert table.features("multi").shape[1] > 1280
    np.testing.assert_array_equal(table.features(ids=["rings/1.jpg"])[0], table.features()[table.rows["rings/1.jpg"]])


def test_embed_takes_items_without_labels(pictures, draw):
    paths = sorted((pictures / "rings").iterdir())[:5]
    by_folder = headstart.embed(pictures / "rings")
    np.testing.assert_array_equal(headstart.embed(paths).features(), by_folder.features()[:5])
    assert headstart.embed([draw("rings", 0), draw("rings", 3)]).features().shape == (2, 1280)


def test_embed_names_what_it_cannot_read(pictures, tmp_path):
    table = headstart.embed([pictures / "rings" / "1.jpg", tmp_path / "absent.jpg"])
    assert table.ids == (str(pictures / "rings" / "1.jpg"),)
    assert table.failures == {str(tmp_path / "absent.jpg"): "unreadable: there is no such file"}
    with pytest.raises(DataError, match="1 item cannot be read:\n  - .*absent.jpg"):
        headstart.embed([tmp_path / "absent.jpg"])


def test_parquet_holds_the_features(pictures, tmp_path):
    told = embed_to_file(pictures, tmp_path / "f.parquet", block="blocks.2")
    table = headstart.embed(pictures, block="blocks.2")
    rows = pyarrow.parquet.read_table(tmp_path / "f.parquet")
    width = table.features("blocks.2").shape[1]
    assert told == {"items": 120, "width": width, "unreadable": {}, "hits": 120, "misses": 0}
    assert rows.column_names == ["id", "label", "vector"]
    assert rows["id"].to_pylist() == list(table.ids)
    assert rows["label"].to_pylist() == [name.split("/")[0] for name in table.ids]
    np.testing.assert_array_equal(np.stack(rows["vector"].to_numpy()), table.features("blocks.2"))
    assert [path.name for path in tmp_path.iterdir()] == ["f.parquet"]


def test_parquet_of_items_without_labels(pictures, tmp_path):
    embed_to_file(pictures / "rings", tmp_path / "f.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "f.parquet")
    assert rows["label"].null_count == rows.num_rows == 30


def test_parquet_appears_only_whole(pictures, tmp_path):
    (tmp_path / "f.parquet").write_text("an older file")
    with pytest.raises(DataError, match="absent.jpg' does not exist"):
        embed_to_file(tmp_path / "absent.jpg", tmp_path / "f.parquet", overwrite=True)
    with pytest.raises(DataError, match="2 items cannot be read"):
        embed_to_file([b"no picture", b"nor this"], tmp_path / "f.parquet", overwrite=True)
    with pytest.raises(SettingError, match="f.csv is not named as a Parquet"):
        embed_to_file(pictures, tmp_path / "f.csv")
    with pytest.raises(SettingError, match="no block 'blocks.99'"):
        embed_to_file(pictures, tmp_path / "f.parquet", block="blocks.99", overwrite=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f.parquet", "an older file")]
    with pytest.raises(SettingError, match="f.parquet cannot be written: .*No such file or directory"):
        embed_to_file(pictures, tmp_path / "absent" / "f.parquet")


# The page


def test_the_page_is_written_again_from_the_evidence(artifact, tmp_path):
    folder = shutil.copytree(artifact, tmp_path / "copy.hs")
    before = (folder / "report.html").read_text()
    assert rewrite_report(folder) == folder / "report.html"
    after = (folder / "report.html").read_text()
    # The first page was written while the clock still ran: its drawing of the
    # times and every time in its text may differ.
    timeless = [
        re.sub(r"[\d.:]+(\s(?:m?s|min)\b)?", "", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
        for page in (before, after)
    ]
    assert timeless[0] == timeless[1]
    rewrite_report(folder)
    assert (folder / "report.html").read_text() == after
    headstart.load(folder)


def test_the_page_asks_for_nothing_outside_itself(artifact):
    page = (artifact / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert "<script" not in page and "<link" not in page


# What a hostile folder could do


def test_a_model_folder_cannot_reach_outside_itself(artifact, tmp_path):
    folder = shutil.copytree(artifact, tmp_path / "copy.hs")
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    text = (folder / "headstart.json").read_text().replace('"report.json"', '"../secret.json"')
    (folder / "headstart.json").write_text(text)
    with pytest.raises(ArtifactError):
        headstart.load(folder)


def test_labels_swapped_by_hand_are_noticed(artifact, tmp_path):
    """Nothing but the order of the labels tells a right answer from a wrong one."""
    folder = shutil.copytree(artifact, tmp_path / "copy.hs")
    text = (folder / "headstart.json").read_text()
    swapped = text.replace('"blobs"', '"?"').replace('"rings"', '"blobs"').replace('"?"', '"rings"')
    assert swapped != text
    (folder / "headstart.json").write_text(swapped)
    with pytest.raises(ArtifactError, match="headstart.json in .* is not what was saved: its checksum differs"):
        headstart.load(folder)
