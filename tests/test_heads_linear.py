import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError, SettingError
from headstart.heads.linear import LinearHead, check_features, check_indicators, check_labels, check_targets
from headstart.heads.logistic import fit_logistic, fit_logistic_multilabel
from headstart.heads.means import fit_lda, fit_nearest_mean
from headstart.heads.ridge import balanced_class_weights, fit_ridge, fit_ridge_multilabel, fit_ridge_value
from headstart.heads.rotation import rotate
from headstart.heads.scaling import learn_scaling

SINGLE = [
    lambda x, y: fit_ridge(x, y, num_classes=3).head,
    lambda x, y: fit_logistic(x, y, num_classes=3),
    lambda x, y: fit_nearest_mean(x, y, num_classes=3),
    lambda x, y: fit_lda(x, y, num_classes=3),
]


def clusters(num_rows=90, width=12, num_classes=3, seed=0, spread=1.0):
    generator = np.random.default_rng(seed)
    labels = np.arange(num_rows) % num_classes
    centres = generator.standard_normal((num_classes, width))
    return (centres[labels] + spread * generator.standard_normal((num_rows, width))).astype(np.float32), labels


@pytest.mark.parametrize("fit", SINGLE)
@pytest.mark.parametrize("width", [4, 200])
def test_every_head_learns_takes_raw_features_and_leaves_its_input_alone(fit, width):
    features, labels = clusters(width=width, spread=0.5)
    features = features * 7 + 100
    before = features.copy()
    head = fit(features, labels)
    assert (features == before).all()
    assert head.weight.shape == (3, width) and head.weight.dtype == np.float32 and head.bias.dtype == np.float32
    assert (head.scores(features).argmax(axis=1) == labels).mean() > 0.8


@pytest.mark.parametrize("fit", SINGLE)
def test_every_head_is_unmoved_by_shift_and_by_one_scale_of_the_features(fit):
    features, labels = clusters(width=40)
    features = features.astype(np.float64)
    plain = fit(features, labels).scores(features)
    moved = fit(features * 20 + 5, labels).scores(features * 20 + 5)
    gaps = [scores - scores.mean(axis=1, keepdims=True) for scores in (plain, moved)]
    np.testing.assert_allclose(gaps[0], gaps[1], atol=2e-3 * np.abs(gaps[0]).max())


@pytest.mark.parametrize("fit", SINGLE)
def test_every_head_takes_duplicate_rows_constant_columns_and_a_class_of_one(fit):
    features, labels = clusters(num_rows=31, width=60)
    features[:, :5] = 3.0
    features[3:12] = features[3]
    labels = labels.copy()
    labels[labels == 2] = 1
    labels[0] = 2
    assert np.isfinite(fit(features, labels).scores(features)).all()


@pytest.mark.parametrize("fit", SINGLE)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_every_head_names_the_place_of_a_value_that_is_no_number(fit, bad):
    features, labels = clusters()
    features[17, 3] = bad
    with pytest.raises(DataError, match="row 17, column 3"):
        fit(features, labels)


@pytest.mark.parametrize("fit", SINGLE)
def test_every_head_names_an_empty_class(fit):
    features, labels = clusters()
    with pytest.raises(DataError, match="1 of 3 classes have no sample: 1"):
        fit(features, np.where(labels == 1, 0, labels))


def test_wrong_shapes_and_ranges_are_told_apart():
    features, labels = clusters()
    with pytest.raises(DataError, match="at least 2"):
        check_labels(labels * 0, num_rows=90, num_classes=1)
    with pytest.raises(DataError, match=r"\(90,\) integers"):
        check_labels(labels[:-1], num_rows=90, num_classes=3)
    with pytest.raises(DataError, match="integers"):
        check_labels(labels.astype(float), num_rows=90, num_classes=3)
    with pytest.raises(DataError, match="num_classes=3"):
        check_labels(labels, num_rows=90, num_classes=2)
    with pytest.raises(DataError, match="two rows"):
        check_features(features[0])
    with pytest.raises(DataError, match="row 4"):
        check_targets(np.where(np.arange(90) == 4, np.nan, 1.0), num_rows=90)
    with pytest.raises(DataError, match="0 and 1"):
        check_indicators(np.full((90, 2), 0.5), num_rows=90)
    with pytest.raises(DataError, match="given to no sample: 1"):
        check_indicators(np.tile([1, 0], (90, 1)), num_rows=90)
    with pytest.raises(DataError, match=r"\(N, 12\)"):
        LinearHead(kind="ridge", weight=np.ones((3, 12)), bias=np.ones(3)).scores(features[:, :5])


def test_integer_features_are_taken_as_numbers_and_large_ones_are_not_mistaken_for_infinity():
    assert check_features(np.array([[1, 2], [3, 4]])).dtype == np.float64
    large = np.full((2000, 2), 1e305)
    assert check_features(large) is large


@pytest.mark.parametrize("kind", ["global", "standard", "root", "block"])
def test_scaling_has_unit_mean_square_and_folds_back_exactly(kind):
    features, _ = clusters()
    features[:, 3:7] *= 50
    features[:, 11] = 2.5
    features = features.astype(np.float64) + 9
    scaling = learn_scaling(features, kind, block_widths=[3, 4, 5])
    scaled = scaling.apply(features)
    np.testing.assert_allclose(np.square(scaled).mean(), 1)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-9)
    weight, bias = np.random.default_rng(1).standard_normal((3, 12)), np.arange(3.0)
    head = scaling.fold("ridge", weight, bias)
    np.testing.assert_allclose(head.scores(features), scaled @ weight.T + bias, rtol=1e-3, atol=1e-3)
    deviations = scaled.std(axis=0)[:11]
    if kind == "standard":
        np.testing.assert_allclose(deviations, deviations[0])
    if kind == "root":
        np.testing.assert_allclose(deviations**2 / features.std(axis=0)[:11], deviations[0] ** 2 / features[:, 0].std())
    if kind == "block":
        powers = [np.square(part).sum() for part in np.split(scaled, [3, 7], axis=1)]
        np.testing.assert_allclose(np.array(powers) / powers[0], np.sqrt(np.array([3, 4, 5]) / 3))


def test_scaling_refuses_what_it_cannot_do():
    features, _ = clusters()
    with pytest.raises(SettingError, match="global, root, standard, block, network"):
        learn_scaling(features, "minmax")
    with pytest.raises(SettingError, match="add up to the 12 columns"):
        learn_scaling(features, "block", block_widths=[3, 4])


@settings(max_examples=40, deadline=None)
@given(num_rows=st.integers(2, 30), width=st.integers(1, 30), seed=st.integers(0, 9), repeated=st.booleans())
def test_rotation_keeps_every_inner_product_and_finds_the_way_back(num_rows, width, seed, repeated):
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((num_rows, width))
    if repeated:
        rows[num_rows // 2 :] = rows[: num_rows - num_rows // 2]
    rotation = rotate(rows)
    np.testing.assert_allclose(rotation.coordinates @ rotation.coordinates.T, rows @ rows.T, atol=1e-6)
    gram = rotation.coordinates.T @ rotation.coordinates
    np.testing.assert_allclose(gram, np.diag(rotation.energies), atol=1e-6 * rotation.energies.max())
    theta = generator.standard_normal((2, len(rotation.energies)))
    np.testing.assert_allclose(rows @ rotation.to_features(theta).T, rotation.coordinates @ theta.T, atol=1e-5)


def test_multilabel_and_value_heads_have_a_row_for_each_target():
    features, labels = clusters()
    table = np.stack([labels == 0, labels != 1], axis=1).astype(int)
    for head in (fit_ridge_multilabel(features, table).head, fit_logistic_multilabel(features, table)):
        assert ((head.scores(features) > 0) == table).mean() > 0.85
    value = features @ np.arange(12.0) + 4
    assert fit_ridge_value(features, value).head.scores(features).shape == (90, 1)
    assert fit_ridge_value(features, np.stack([value, -value], axis=1)).head.scores(features).shape == (90, 2)


def test_balanced_class_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 1, 2, 2])
    np.testing.assert_allclose(
        balanced_class_weights(labels, 3), compute_class_weight("balanced", classes=np.arange(3), y=labels)
    )


def test_the_heads_bring_numpy_alone():
    code = "import sys, headstart.heads.choose; print([m for m in ('scipy', 'sklearn', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_public_name_loads_and_the_linear_head_brings_no_solver():
    import headstart.heads

    assert sorted(name for names in headstart.heads._HOMES.values() for name in names) == headstart.heads.__all__
    assert all(getattr(headstart.heads, name).__name__ == name for name in headstart.heads.__all__)
    with pytest.raises(AttributeError, match="choose_head"):
        headstart.heads.fit_forest  # noqa: B018
    code = "import sys, headstart.heads.linear; print([m for m in sys.modules if m.startswith('headstart.heads.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['headstart.heads.linear']"


def test_no_network_drowns_another():
    """Each network's columns as if they were alone: `root` where it has several blocks, `global` where it has one."""
    random = np.random.default_rng(0)
    loud, quiet = 100 * random.standard_normal((60, 4)) * [1, 2, 3, 4], 0.01 * random.standard_normal((60, 8))
    features = np.concatenate([loud, quiet], axis=1)
    scaled = learn_scaling(features, "network", block_widths=(2, 2, 8), network_widths=(4, 8)).apply(features)
    np.testing.assert_allclose(scaled[:, :4], learn_scaling(loud, "root").apply(loud), rtol=1e-9)
    np.testing.assert_allclose(scaled[:, 4:], learn_scaling(quiet, "global").apply(quiet), rtol=1e-9)
    for wrong in (None, (4, 7), (12, 0)):
        with pytest.raises(SettingError, match="scaling by network got network_widths="):
            learn_scaling(features, "network", block_widths=(2, 2, 8), network_widths=wrong)
