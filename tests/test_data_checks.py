import shlex

import pytest

from headstart.data.checks import find_problems, raise_if_fatal
from headstart.errors import DataError
from headstart.records import Dataset, Finding, Sample
from test_data_folders import three_parts


def make(spec, task="single"):
    """A dataset of (id, label or labels or value, split) triples."""
    samples = []
    for name, label, split in spec:
        labels = () if task == "value" else (label,) if isinstance(label, str) else tuple(label)
        samples.append(Sample(id=name, item=name, labels=labels, value=label if task == "value" else None, split=split))
    labels = tuple(sorted({label for sample in samples for label in sample.labels}))
    return Dataset(samples=tuple(samples), labels=labels, task=task, modality="image", source="test")


def plain(**counts):
    return make([(f"{label}{i}", label, None) for label, number in counts.items() for i in range(number)])


def of_kind(findings, kind, severity=None):
    return [f for f in findings if f.kind == kind and severity in (None, f.severity)]


def test_sound_data_has_no_findings():
    hashes = {f"a{i}": str(i) for i in range(9)}
    assert find_problems(plain(a=9, b=9), hashes=hashes, near_duplicates=[], measured="cosine of features ≥ 0.9") == []
    raise_if_fatal([])


def test_unreadable_items_are_told_by_kind_with_reasons():
    reasons = {
        "a0": "truncated: 3 bytes missing",
        "a1": "truncated: cut",
        "a2": "empty",
        "b0": "weird format",
        "b1": "bomb: 9 GB",
    }
    findings = find_problems(plain(a=9, b=9), unreadable=reasons)
    assert {f.kind: f.items for f in findings} == {
        "truncated": ("a0", "a1"),
        "empty": ("a2",),
        "unreadable": ("b0",),
        "bomb": ("b1",),
    }
    assert all(f.severity == "warning" and f.mend for f in findings)
    assert "a0 (3 bytes missing), a1 (cut)" in of_kind(findings, "truncated")[0].message
    raise_if_fatal(findings)


def test_nothing_readable_is_fatal():
    findings = find_problems(plain(a=2, b=2), unreadable={n: f"zero_size: {n}" for n in ("a0", "a1", "b0", "b1")})
    with pytest.raises(DataError) as error:
        raise_if_fatal(findings)
    three_parts(error, "none of the 4 items", "a0 (a0)")
    assert [f.items for f in findings] == [("a0", "a1", "b0", "b1")]


def test_what_wants_converting_is_told_with_the_way():
    wanting, cut = {n: f"unsupported: {n} is M4A" for n in ("a0", "a1", "b0")}, {"b1": "truncated: cut"}
    mends = dict.fromkeys(wanting, "ffmpeg -i FILE FILE.flac") | {"b1": "copy it anew."}
    (left_out,) = find_problems(plain(a=9, b=9), unreadable=wanting, mends=mends)
    assert (left_out.kind, left_out.mend) == ("unsupported", "ffmpeg -i FILE FILE.flac")
    assert "3 items of a kind that is not read here: a0 (a0 is M4A)" in left_out.message
    (none,) = find_problems(plain(a=2, b=2), unreadable=wanting | cut, mends=mends)
    assert (none.severity, none.mend) == ("error", "ffmpeg -i FILE FILE.flac")
    (unknown,) = find_problems(plain(a=9, b=9), unreadable=wanting)
    assert "replace" in unknown.mend


def test_exact_and_near_duplicates_are_apart():
    hashes = {"a0": "x", "a1": "x", "a2": "y", "a3": "z"}
    measured, alike = "cosine of features ≥ 0.85", [("a0", "a1"), ("a1", "a2")]
    findings = find_problems(plain(a=9, b=9), hashes=hashes, near_duplicates=alike, measured=measured)
    assert of_kind(findings, "duplicate")[0].items == ("a0", "a1")
    near = of_kind(findings, "near_duplicate")[0]
    assert near.items == ("a1", "a2") and "≥ 0.85" in near.message


def test_hashes_of_unreadable_items_make_no_duplicates():
    findings = find_problems(plain(a=9, b=9), hashes={"a0": "e", "a1": "e"}, unreadable={"a0": "empty", "a1": "empty"})
    assert not of_kind(findings, "duplicate")


def test_copies_across_the_official_split_leak():
    data = make([*((f"{c}{i}", c, "train") for c in "ab" for i in range(6)), ("t0", "a", "test"), ("t1", "b", "test")])
    findings = find_problems(data, hashes={"a0": "x", "t0": "x", "a1": "y", "a2": "y"}, near_duplicates=[("b0", "b1", "t1")])
    leaks = of_kind(findings, "leak")
    assert [leak.items for leak in leaks] == [("a0", "t0"), ("b0", "b1", "t1")]
    assert all("1 held-out item" in leak.message for leak in leaks)


def test_one_item_under_two_labels():
    findings = find_problems(plain(a=6, b=6), hashes={"a0": "x", "b0": "x", "a1": "y", "a2": "y"})
    (conflict,) = of_kind(findings, "label_conflict")
    assert conflict.items == ("a0", "b0") and "a0 ('a') = b0 ('b')" in conflict.message
    values = make([("p", 1.0, None), ("q", 2.0, None)], task="value")
    assert "p (1) = q (2)" in of_kind(find_problems(values, hashes={"p": "x", "q": "x"}), "label_conflict")[0].message


def test_a_class_of_one_sample_is_an_error_that_says_what_to_do():
    findings = find_problems(plain(a=9, b=1, c=1))
    (tiny,) = of_kind(findings, "tiny_class")
    assert tiny.severity == "error" and tiny.items == ("b0", "c0")
    with pytest.raises(DataError) as error:
        raise_if_fatal(findings)
    three_parts(error, "2 classes with one sample only: 'b', 'c'", "--merge-labels", "at least one more sample", "--task value")
    multi = make([("x", ["a", "b"], None), ("y", ["a"], None)], task="multi")
    assert of_kind(find_problems(multi), "tiny_class")[0].severity == "warning"


def test_a_class_of_two_to_four_is_a_warning_of_cross_validation():
    (tiny,) = of_kind(find_problems(plain(a=9, b=2, c=4, d=5)), "tiny_class")
    assert tiny.severity == "warning" and "'b' (2), 'c' (4)" in tiny.message and "cross-validated" in tiny.message


def test_unreadable_items_can_make_a_class_tiny_or_empty():
    data = plain(a=9, b=2, c=2)
    findings = find_problems(data, unreadable={"b0": "empty", "c0": "empty", "c1": "empty"})
    assert "'b'" in of_kind(findings, "tiny_class", "error")[0].message
    assert "'c'" in next(f for f in of_kind(findings, "empty") if not f.items).message


def test_fewer_than_two_classes_left_is_fatal():
    findings = find_problems(plain(a=9, b=2), unreadable={"b0": "empty", "b1": "empty"})
    with pytest.raises(DataError) as error:
        raise_if_fatal(findings)
    three_parts(error, "only 'a' is", "at least two classes")


def test_imbalance_from_ten_to_one():
    assert not of_kind(find_problems(plain(a=59, b=6)), "imbalance")
    (finding,) = of_kind(find_problems(plain(a=60, b=6)), "imbalance")
    assert "10 times" in finding.message and "--balance weights" in finding.mend


def test_names_that_differ_by_case_or_space_with_the_exact_mend():
    spec = {"cat": 9, "Cat": 5, "big dog": 7, "BigDog": 6, "bird": 5}
    data = make([(f"{label}/{i}", label, None) for label, number in spec.items() for i in range(number)])
    clashes = of_kind(find_problems(data), "case_clash")
    assert sorted(f.mend for f in clashes) == ["--merge-labels 'BigDog=big dog'", "--merge-labels Cat=cat"]
    assert all(len(shlex.split(f.mend)) == 2 for f in clashes)
    assert sorted(len(f.items) for f in clashes) == [5, 6]


def test_classes_of_one_side_of_the_official_split():
    train = [(f"{c}{i}", c, "train") for c in "abc" for i in range(6)]
    findings = find_problems(make([*train, ("t0", "a", "test"), ("t1", "zebra", "test")]))
    error, warning = of_kind(findings, "split_mismatch")
    assert error.severity == "error" and "'zebra' (1 sample)" in error.message and error.items == ("t1",)
    assert warning.severity == "warning" and "'b', 'c'" in warning.message


def test_all_errors_are_raised_at_once():
    data = make([*((f"{c}{i}", c, "train") for c in "ab" for i in range(6)), ("c0", "c", None), ("t", "d", "test")])
    findings = find_problems(data)
    assert [f.severity for f in findings] == sorted((f.severity for f in findings), key=["error", "warning", "info"].index)
    with pytest.raises(DataError) as error:
        raise_if_fatal(findings)
    three_parts(error, "2 problems", "'c'", "'d'", "two samples in every class", "every label of the test split")


def test_every_error_can_be_raised():
    for kind in ("unreadable", "too_few_classes", "tiny_class", "split_mismatch", "another"):
        with pytest.raises(DataError, match="told"):
            raise_if_fatal([Finding(kind=kind, severity="error", items=(), message="told", mend="m")])


@pytest.mark.parametrize(
    ("other", "kept", "said", "unsaid"),
    [
        ("cafe\u0301", "caf\u00e9", ["Unicode normalisation"], ["case", "white space"]),
        ("A\u030angstro\u0308m", "\u00e5ngstr\u00f6m", ["Unicode normalisation", "case"], ["white space"]),
        ("\u0915\u093c", "\u0958", ["Unicode normalisation"], ["case"]),
        ("Caf\u00e9", "caf\u00e9", ["case"], ["Unicode", "white space"]),
        ("big dog", "bigdog", ["white space"], ["Unicode", "only by case"]),
    ],
)
def test_a_clash_of_spellings_says_what_differs(other, kept, said, unsaid):
    data = make([(f"{label}/{i}", label, None) for label, number in ((other, 5), (kept, 9)) for i in range(number)])
    (clash,) = of_kind(find_problems(data), "case_clash")
    reason = "only by" + clash.message.partition("only by")[2]
    assert all(word in reason for word in said) and not any(word in reason for word in unsaid)


@pytest.mark.parametrize(
    ("task", "labels", "never"),
    [
        ("single", ("a", "b"), []),
        ("multi", (("a",), ("a", "b")), ["--task"]),
        ("value", (1.5, 2.5), ["label", "--task", "multi"]),
    ],
)
def test_copies_that_disagree_are_mended_as_the_task_needs(task, labels, never):
    spec = [("x0", labels[0], None), ("x1", labels[1], None)]
    spec += [(f"y{i}", labels[i % 2], None) for i in range(20)]
    data = make(spec, task=task)
    hashes = {sample.id: "same" if sample.id.startswith("x") else sample.id for sample in data.samples}
    (conflict,) = of_kind(find_problems(data, hashes=hashes), "label_conflict")
    assert set(conflict.items) == {"x0", "x1"}
    assert not any(word in f"{conflict.message} {conflict.mend}" for word in never)
    assert ("--task multi" in conflict.mend) == (task == "single")


def test_imbalanced_label_sets_have_no_accuracy():
    data = make([*((f"a{i}", ("a",), None) for i in range(60)), *((f"b{i}", ("b",), None) for i in range(6))], task="multi")
    (finding,) = of_kind(find_problems(data), "imbalance")
    assert "accuracy" not in finding.message and "micro-F1" in finding.message and "--balance" not in finding.mend
