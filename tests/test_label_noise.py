"""Labels that look wrong are reported, and hard but right ones are not."""

import numpy as np
import pytest

from headstart.evidence.label_noise import find_label_noise


def answers(*, num_classes, distance, flipped=0.0, num_items=600, seed=0):
    """Posterior probabilities of Gaussian classes, tempered for flipped labels as calibration does, and the labels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, num_items)
    centres = np.eye(num_classes) * distance
    points = centres[truth] + rng.normal(size=(num_items, num_classes))
    scores = -0.5 * ((points[:, None] - centres) ** 2).sum(-1)
    clean = np.exp(scores - scores.max(1, keepdims=True))
    clean /= clean.sum(1, keepdims=True)
    labels = truth.copy()
    chosen = rng.random(num_items) < flipped
    labels[chosen] = (truth[chosen] + rng.integers(1, num_classes, chosen.sum())) % num_classes
    return (1 - flipped) * clean + flipped * (1 - clean) / (num_classes - 1), labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("num_classes", "distance"), [(2, 3.0), (2, 2.0), (5, 4.0), (10, 5.0)])
def test_flipped_labels_are_found_with_their_share(num_classes, distance, seed):
    found = find_label_noise(*answers(num_classes=num_classes, distance=distance, flipped=0.15, seed=seed))
    assert found is not None and 0.07 < found.share < 0.25


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("num_classes", "distance"), [(2, 0.0), (2, 0.3), (2, 0.7), (2, 1.0), (2, 2.0), (2, 6.0), (5, 1.0), (5, 2.0), (10, 3.0)]
)
def test_right_labels_are_left_alone_however_hard_they_are(num_classes, distance, seed):
    assert find_label_noise(*answers(num_classes=num_classes, distance=distance, seed=seed)) is None


def test_few_items_say_nothing():
    assert find_label_noise(*answers(num_classes=2, distance=3.0, flipped=0.3, num_items=80)) is None
