"""The mistakes that the report shows first, for every task."""

import numpy as np
import pytest

from headstart.api.evidence import Evidence
from headstart.api.mistakes import mistakes
from headstart.records import Dataset, Sample
from headstart.select.calibration import Calibration

LABELS = ("cat", "dog", "owl")


class Answering:
    """As much of a floor as the answers go by."""

    def __init__(self, labels=LABELS, thresholds=(0.5, 0.5, 0.5)):
        self.labels = labels
        self.calibration = Calibration(temperatures=np.ones(len(thresholds)), thresholds=np.array(thresholds))


def dataset(task, **of_each):
    count = len(next(iter(of_each.values())))
    samples = tuple(
        Sample(id=f"{row}", item=None, **{key: values[row] for key, values in of_each.items()}) for row in range(count)
    )
    return Dataset(samples=samples, labels=LABELS, task=task, modality="text", source="")


def found(answers, data, answering=None, count=9):
    answers = np.array(answers)
    ids = tuple(sample.id for sample in data.samples)
    return mistakes(Evidence(evaluation=None, ids=ids, answers=answers), data, answering or Answering(), count=count)


def test_wrong_labels_surest_first():
    data = dataset("single", labels=[("cat",), ("dog",), ("owl",), ("dog",)])
    told = found([[0.9, 0.1, 0], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0, 1, 0]], data)
    assert [(row["item"], row["label"], row["predicted"], row["probability"]) for row in told] == [
        ("2", "owl", "dog", 0.8),
        ("1", "dog", "cat", 0.6),
    ]
    assert len(found([[0.9, 0.1, 0]] * 4, data, count=1)) == 1


def test_labels_too_many_and_too_few_by_how_sure_they_were():
    data = dataset("multi", labels=[("cat", "dog"), ("owl",), ("dog",)])
    answering = Answering(thresholds=(0.5, 0.5, 0.2))
    told = found([[0.9, 0.1, 0.3], [0.1, 0.1, 0.25], [0.6, 0.9, 0.0]], data, answering)
    assert [(row["item"], row["label"], row["predicted"], row["probability"]) for row in told] == [
        ("0", "cat | dog", "cat | owl", 0.9),
        ("2", "dog", "cat | dog", 0.6),
    ]


def test_the_largest_errors_of_values():
    data = dataset("value", value=[1.0, 2.0, 3.0])
    told = found([[1.5], [2.1], [1.0]], data, Answering((), (0.5,)), count=2)
    assert told == [
        {"item": "2", "label": "3", "predicted": "1"},
        {"item": "0", "label": "1", "predicted": "1.5"},
    ]


@pytest.mark.parametrize("task", ["single", "multi"])
def test_nothing_is_shown_where_nothing_is_wrong(task):
    data = dataset(task, labels=[("cat",), ("dog",)])
    assert found([[0.9, 0.1, 0], [0.1, 0.9, 0]], data) == []
