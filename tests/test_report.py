"""The report page and the card: whole, self-contained, and safe with any label."""

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.errors import ArtifactError, MissingPackageError
from headstart.evidence.evaluate import evaluate_multi, evaluate_single, evaluate_value
from headstart.heads.temperature import sigmoid, softmax
from headstart.report import page as report_page
from headstart.report import words
from headstart.report.card import model_card
from headstart.report.page import render_report

HOSTILE = [
    "<script>alert(1)</script>",
    "$x$ and \\frac{1}{2}",
    "😀 emoji",
    'it\'s "quoted"',
    "line\nbreak",
    "L" * 200,
    "../../etc/passwd",
    "a,b;c|d",
    "{{ 7*7 }}{% raw %}",
    "日本語のラベル",
    "\u202eright to left",
    "zq0qz #010101 url(#x)",
    "</svg></style><img src=x onerror=alert(1)>",
    "&amp; &lt;",
    "\ud800 lone",
    "tab\tand\x00nul",
]
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page as a browser would: elements, attributes, texts, and whether tags are balanced."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))

    def inside(self, tag):
        return [data for path, data in self.texts if tag in path]


def make_picture():
    buffer = io.BytesIO()
    Image.new("RGB", (24, 18), "teal").save(buffer, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def make_report(names=("cat", "dog", "emu"), num_items=120, gain=2.0):
    names, rng = list(names), np.random.default_rng(0)
    labels = rng.integers(0, len(names), num_items)
    probabilities = softmax(rng.normal(size=(num_items, len(names))) + gain * np.eye(len(names))[labels])
    evaluation = evaluate_single(probabilities, labels, names, seed=0)
    seconds = {"read": 0.4, "features": 3.2, "head": 0.3, "tune": 0.0, "evaluate": 0.1, "report": 0.4, "total": 4.9}
    mistakes = [
        {"item": "x/1.jpg", "label": names[0], "predicted": names[1], "probability": 0.97, "thumbnail": make_picture()},
        {"item": "x/2.jpg", "label": names[1], "predicted": names[0], "probability": 0.91, "thumbnail": None},
    ]
    return {
        "format": 1,
        "created": "2026-01-02 03:04",
        "headstart_version": "0.1.0",
        "summary": {
            "artifact": "out/pets.hs", "modality": "image", "task": "single", "backbone": "efficientnet-lite0",
            "strategy": "extract", "labels": names, "counts": {"train": 400, "test": num_items}, "test": evaluation.as_json(),
            "floor": {"head": "logistic", "cv_accuracy": 0.888}, "majority_accuracy": evaluation.majority["accuracy"],
            "gate": {"tried": ["last:2"], "kept": "extract", "reason": "the gain is within chance"}, "seconds": seconds,
            "items_per_second": 95.0, "warnings": list(evaluation.warnings),
        },
        "data": {
            "source": "folder pets/", "split": "random 80/20, seed 0",
            "classes": [{"label": name, "train": 20, "test": 5} for name in names],
            "findings": [
                {"kind": "tiny_class", "severity": "warning", "items": ["x/7.jpg"], "message": "few items", "mend": "add some"},
                {"kind": "unreadable", "severity": "error", "items": [], "message": "cannot be read", "mend": "remove it"},
            ],
        },
        "backbone": {"name": "efficientnet-lite0", "licence": "Apache-2.0", "sha256": "ab" * 32, "num_parameters": 3371856,
                     "blocks": [{"name": "stem", "width": 32, "parameters": 864, "frozen": True}]},
        "preprocess": {"geometry": "pad", "size": [224, 224], "draft": True},
        "choices": [{"question": "image geometry", "kept": "pad", "reason": "best", "candidates": [
            {"name": "crop", "score": 0.85, "note": "plain"}, {"name": "pad", "score": 0.87}]}],
        "evaluation": {**evaluation.as_report(), "temperature": 1.3, "mistakes": mistakes},
        "seconds": seconds,
        "warnings": ["look here"],
    }  # fmt: skip


def make_value_report():
    rng = np.random.default_rng(0)
    targets = rng.normal(50, 10, 80)
    predictions = targets + rng.normal(0, 3, 80)
    evaluation = evaluate_value(predictions, targets, seed=0)
    report = make_report()
    report["summary"] |= {"task": "value", "labels": [], "test": evaluation.as_json(), "majority_accuracy": None}
    pairs = [[float(target), float(prediction)] for target, prediction in zip(targets, predictions, strict=True)]
    report["evaluation"] = {**evaluation.as_report(), "predictions_vs_targets": pairs}
    return report


def make_multi_report():
    rng = np.random.default_rng(0)
    targets = rng.random((90, 4)) < 0.3
    names = ["sea", "sun", "sand", "<b>sky</b>"]
    evaluation = evaluate_multi(sigmoid(rng.normal(size=targets.shape) + 3 * targets - 1.5), targets, names, seed=0)
    report = make_report()
    report["summary"] |= {"task": "multi", "labels": names, "test": evaluation.as_json(), "majority_accuracy": None}
    report["evaluation"] = evaluation.as_report()
    return report


REPORTS = {
    "single": make_report,
    "value": make_value_report,
    "multi": make_multi_report,
    "two classes": lambda: make_report(["no", "yes"]),
    "300 classes": lambda: make_report([f"class {number}" for number in range(300)], 3000),
    "hostile": lambda: make_report(HOSTILE, 300),
    "bare": lambda: {"summary": {}},
}


@pytest.mark.parametrize("name", REPORTS)
def test_page_is_self_contained_balanced_and_without_scripts(name):
    text = render_report(REPORTS[name]())
    page = Page(text)
    assert page.open == []
    assert not {"script", "iframe", "object", "link", "base", "form"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in {"src", "href", "xlink:href"}:
                assert value.startswith(("data:image/", "#"))
    assert "@import" not in text
    assert all(reference.startswith("#") for reference in re.findall(r"url\(([^)]*)\)", text.replace("url(#x)", "")))
    assert "https://" not in text
    assert "http://" not in text


@pytest.mark.parametrize("name", REPORTS)
def test_ids_are_unique_and_every_reference_meets_its_own(name):
    elements = Page(render_report(REPORTS[name]())).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements:
        if "xlink:href" in attributes and attributes["xlink:href"].startswith("#"):
            assert attributes["xlink:href"][1:] in ids
        if "clip-path" in attributes:
            assert attributes["clip-path"].removeprefix("url(#").removesuffix(")") in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids


@pytest.mark.parametrize("name", REPORTS)
def test_charts_are_well_formed_described_and_take_the_pages_colours_and_font(name):
    text = render_report(REPORTS[name]())
    charts = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert bool(charts) == (name != "bare")
    for chart in charts:
        root = ElementTree.fromstring(chart.replace("<svg", '<svg xmlns:xlink="urn:x"', 1))
        assert root.get("role") == "img"
        assert len(root.get("aria-label")) > 20
        assert not re.search(r'style="[^"]*#0101', chart)
        assert "DejaVu" not in chart


def test_every_label_is_shown_literally_in_table_and_chart():
    page = Page(render_report(make_report(HOSTILE, 300)))
    cells = [data for path, data in page.texts if path[-2:] == ("th", "bdi")]
    drawn = page.inside("text")
    for label in HOSTILE:
        assert words.show(label) in cells
        assert words.shorten(label, 20) in drawn
    assert "<script>alert(1)</script>" in cells
    assert "{{ 7*7 }}{% raw %}" in cells
    assert "line⏎break" in cells
    assert "L" * 200 in cells


@settings(max_examples=8, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40), min_size=2, max_size=5, unique=True))
def test_any_label_is_shown_as_it_is(names):
    page = Page(render_report(make_report(names, 30)))
    cells = [data for path, data in page.texts if path[-2:] == ("th", "bdi")]
    assert page.open == []
    for label in names:
        # Where `show` has put invisible characters away, the parser gives back the text exactly.
        assert words.show(label) in cells


def test_card_shows_hostile_labels_without_markup():
    card = model_card(make_report(HOSTILE, 300))
    assert not re.search(r"(?<!\\)<", card)
    assert "\\$x\\$ and \\\\frac\\{1\\}\\{2\\}" in card
    assert '- it\'s "quoted"' in card
    labels = card.split("## Labels")[1].split("##")[0].strip().splitlines()
    assert len(labels) == len(HOSTILE)
    card.encode("utf-8")


@pytest.mark.parametrize("label", ["- x", "# x", "1. x", "+", "    code", "https://a.b", "www.a.b", "![a](b)", "a`b", "|"])
def test_card_escapes_what_markdown_would_read(label):
    row = model_card({"summary": {"labels": [label]}}).split("## Labels\n\n- ")[1].splitlines()[0]
    assert not re.match(r"[-+#]|\d+\.|\s{2}", row.replace("\N{NO-BREAK SPACE}", "_"))
    assert not re.search(r"(?<!\\)[`|\[]|(?<!\\)://|www\.", row)
    assert row.replace("\\", "").replace("\N{NO-BREAK SPACE}", " ") == label


def test_card_tells_evidence_limits_licence_and_use():
    card = model_card(make_report())
    for expected in (
        "# pets.hs", "| Accuracy |", "95 % interval", "Measured on 120 test items", "licence: Apache-2.0", "- look here",
        "headstart predict out/pets.hs new.jpg", "headstart.load('out/pets.hs')", "## Limits",
    ):  # fmt: skip
        assert expected in card
    assert model_card({"summary": {}}).startswith("# model\n")


def test_page_tells_the_whole_story():
    text = render_report(make_report())
    said = " ".join(data for path, data in Page(text).texts if "style" not in path)
    for expected in (
        "95\xa0% interval", "always answering ‘", "would get", "Macro F1", "tiny class", "add some", "look here", "Recall",
        "What was taken for what", "Most often confused", "Can its sureness be trusted?", "divided by 1.30", "0.97",
        "image geometry", "✓ kept", "The gain is within chance.", "features", "random 80/20, seed 0", "Apache-2.0", "ab" * 32,
        "3,371,856", "224, 224", "headstart predict out/pets.hs new.jpg", "model = headstart.load('out/pets.hs')",
    ):  # fmt: skip
        assert expected in said
    assert said.index("cannot be read") < said.index("look here") < said.index("few items")
    assert make_picture() in text


@pytest.mark.parametrize(
    "thumbnail", ["javascript:alert(1)", "data:text/html;base64,AAAA", 'data:image/png;base64,A" onload="x', 7]
)
def test_a_thumbnail_that_is_no_picture_is_left_out(thumbnail):
    report = make_report()
    report["evaluation"]["mistakes"][0]["thumbnail"] = thumbnail
    assert not [attributes for tag, attributes in Page(render_report(report)).elements if tag == "img"]


def test_many_classes_get_a_heat_map_and_the_confused_pairs():
    text = render_report(make_report([f"class {number}" for number in range(300)], 3000))
    assert text.count("<text") < 250
    assert "the 40 weakest of 300" in text
    assert "Most often confused" in text
    assert len(text) < 600_000


@pytest.mark.parametrize("make", [make_report, make_value_report, make_multi_report])
def test_older_artifacts_may_lack_any_part(make):
    whole = make()
    for key in [key for key in whole if key != "summary"]:
        assert Page(render_report({name: part for name, part in whole.items() if name != key})).open == []


def test_older_artifacts_may_lack_parts_of_parts():
    whole = make_report()
    for part in ("summary", "data", "backbone", "evaluation"):
        for key in list(whole[part]):
            report = whole | {part: {name: value for name, value in whole[part].items() if name != key}}
            model_card(report)
            if part == "evaluation" or key in {"test", "labels", "counts"}:
                assert Page(render_report(report)).open == []
    bare = {"summary": {}, "choices": [{}], "data": {"findings": [{}], "classes": [{}]}, "backbone": {"blocks": [{}]},
            "evaluation": {"mistakes": [{}], "per_class": [{"label": "a"}], "metrics": {"accuracy": None}}}  # fmt: skip
    assert Page(render_report(bare)).open == []


def summarise(test, **more):
    return {"summary": {"modality": "image", "counts": {"test": 129}, "test": test} | more}


def test_headline_of_one_label_each():
    report = summarise({"accuracy": 0.93, "accuracy_ci95": [0.871, 0.968]}, majority_accuracy=0.38)
    report["evaluation"] = {"majority": {"label": "animals", "accuracy": 0.38}}
    assert words.headline(report).replace("\xa0", " ") == (
        "93 % of 129 test images labelled right (95 % interval 87–97 %); always answering ‘animals’ would get 38 %."
    )
    assert "the most frequent label would get 38" in words.headline(report | {"evaluation": {}})


@pytest.mark.parametrize(("clips", "named"), [(520, "clips"), (400, "images and clips"), (0, "images")])
def test_clips_are_called_clips_in_page_and_card(clips, named):
    report = make_report()
    report["summary"]["counts"] |= {"clips": clips} if clips else {}
    report["choices"] = []
    said = Page(render_report(report)).texts
    for told in (" ".join(data for path, data in said if "style" not in path), model_card(report)):
        assert f"120 test {named} labelled right" in told and f"400 {named}," in told
        assert "image" not in told.replace(named, "")
        assert f"headstart predict out/pets.hs new.{'mp4' if clips else 'jpg'}" in told
    one = {"modality": "image", "counts": {"train": 0, "test": 1, "clips": 1}}
    assert words.name_items(one, 1) == "clip"
    assert words.name_items(one | {"counts": {"train": 1, "test": 1, "clips": 1}}, 1) == "image or clip"


def test_headline_of_cross_validation_says_so():
    report = summarise({"accuracy": 0.9}, counts={"test": 0}, modality="text")
    report["evaluation"] = {"basis": "5-fold cross-validation over 40 items: an estimate, no separate test set"}
    assert words.headline(report).replace("\xa0", " ") == (
        "90 % of texts (5-fold cross-validation over 40 items: an estimate, no separate test set) labelled right."
    )


def test_headline_of_values_and_of_several_labels():
    value = summarise({"mae": 4.4, "mae_ci95": [4.0, 4.8], "r2": -0.1})
    assert "Off by 4.40 on average" in words.headline(value)
    assert "always answering the mean would do no worse" in words.headline(value)
    assert words.headline(summarise({"micro_f1": 0.851})).startswith("F1 0.851 over all labels of 129 test images")
    assert "not evaluated" in words.headline({"summary": {}})


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [
        (0.933, 129, "93 %"),
        (0.999, 129, "99 %"),
        (1.0, 129, "100 %"),
        (0.001, 129, "1 %"),
        (0.0, 9, "0 %"),
        (0.9996, 5000, "99.9 %"),
    ],
)
def test_percent_is_never_rounded_to_all_or_none(share, count, expected):
    assert words.percent(share, count).replace("\xa0", " ") == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.034, "34 ms"), (6.72, "6.7 s"), (42.4, "42 s"), (125, "2 min 5 s"), (7300, "2 h 1 min")]
)
def test_durations(seconds, expected):
    assert words.duration(seconds).replace("\xa0", " ") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.3121, "0.312"), (1.3, "1.30"), (0, "0.000"), (12345.6, "12,346"), (95.4, "95.4"), (2e-5, "2e-05")],
)
def test_numbers(value, expected):
    assert words.number(value) == expected


def test_a_report_makes_the_same_page_every_time_and_what_is_none_is_refused():
    assert render_report(make_report()) == render_report(make_report())
    with pytest.raises(ArtifactError, match="no summary"):
        render_report({"format": 1})
    broken = make_report()
    broken["evaluation"]["confusion"]["counts"] = "no matrix"
    with pytest.raises(ValueError, match="convert"):
        render_report(broken)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    report_page._template.cache_clear()
    with pytest.raises(MissingPackageError, match=r"jinja2[\s\S]*pip install"):
        render_report({"summary": {}})


def test_a_report_that_went_through_json_gives_the_same_page():
    report = make_report()
    assert render_report(json.loads(json.dumps(report))) == render_report(report)


def test_the_users_own_matplotlib_settings_neither_matter_nor_change():
    plain = render_report(make_report())
    with mpl.rc_context({"text.usetex": True, "svg.fonttype": "path", "font.size": 30, "axes.grid": True}):
        before = dict(mpl.rcParams)
        assert render_report(make_report()) == plain
        assert dict(mpl.rcParams) == before


def test_nothing_heavy_is_loaded_before_it_is_needed_and_pyplot_never():
    code = (
        "import sys; from headstart.report.page import render_report; from headstart.report.card import model_card;"
        "assert not {'matplotlib', 'jinja2'} & set(sys.modules);"
        "model_card({'summary': {}});"
        "assert not {'matplotlib', 'jinja2'} & set(sys.modules);"
        "render_report({'summary': {}, 'seconds': {'total': 1.0}});"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules;"
        "assert not {'scipy', 'sklearn', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ([0.988, 0.999], "98.8–99.9 %"),
        ([0.87, 0.97], "87–97 %"),
        ([0.9712, 0.9735], "97.12–97.35 %"),
        ([0.98765, 0.98789], "98.765–98.789 %"),
        ([0.9999, 1.0], "99.990–100.000 %"),
        ([1.0, 1.0], "100–100 %"),
        ([0.0, 0.6], "0–60 %"),
    ],
)
def test_an_interval_has_the_decimals_that_its_width_needs(interval, expected):
    assert words.percent_range(interval).replace("\xa0", " ") == expected


def test_a_value_has_the_decimals_of_its_interval_and_fewer_never():
    assert words.percent(0.9951, interval=[0.988, 0.999]).replace("\xa0", " ") == "99.5 %"
    assert words.percent(0.93, 5000, interval=[0.8, 0.99]).replace("\xa0", " ") == "93 %"
    assert words.number_range([0.99912, 0.99934]) == "0.99912–0.99934"
    assert words.number_range([0.81, 0.93]) == "0.810–0.930"
    assert words.number_range([-0.12, 0.3]) == "-0.120 to 0.300"
    assert words.number(0.9992, [0.99912, 0.99934]) == "0.99920"
    assert [words.decimals_of(width) for width in (0, 20, 5, 4.9, 0.5, 0.4, 1e-12)] == [0, 0, 0, 1, 1, 2, 6]
