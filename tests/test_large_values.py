"""Regression targets far from 0: nothing of them is lost in float32, neither in the evidence nor in what is saved."""

import numpy as np
import onnxruntime
import pytest

import headstart
from headstart.data.targets import OFFSET_FROM, centre_values, encode_targets, format_value
from headstart.records import Dataset, Sample

SHIFT = 1.7e9


def values_of(values):
    samples = tuple(Sample(id=str(index), item="x", value=float(value)) for index, value in enumerate(values))
    return Dataset(samples=samples, labels=(), task="value", modality="text", source="")


@pytest.fixture(scope="module")
def models(pictures, tmp_path_factory):
    """A model of values near 0, and one of the same values moved far from it."""
    paths = sorted(pictures.glob("*/*"))[::2]
    values = [index // 15 + 0.1 * (index % 7) for index in range(len(paths))]
    folder = tmp_path_factory.mktemp("values")
    made = {}
    for shift in (0.0, SHIFT):
        data = [(path, value + shift) for path, value in zip(paths, values, strict=True)]
        options = {"task": "regression", "strategy": "extract", "geometry": "pad", "precision": "float32"}
        made[shift] = headstart.fit(data, out=folder / f"{shift}.hs", **options), data
    return made


def test_evidence_does_not_depend_on_where_zero_is(models):
    near, far = (models[shift][0].report.content["summary"]["test"] for shift in (0.0, SHIFT))
    for name in ("mae", "rmse", "r2"):
        assert far[name] == pytest.approx(near[name], rel=1e-6)


def test_saved_and_exported_models_answer_in_full(models, tmp_path):
    (near, few), (far, data) = models[0.0], models[SHIFT]
    paths = [path for path, _ in few[:8]]
    wanted = np.array([each.value for each in near.predict(paths)])
    found = np.array([each.value for each in headstart.load(far.folder).predict(paths)])
    np.testing.assert_allclose(found - SHIFT, wanted, atol=1e-5)
    from headstart.api.export import export

    export(far.folder, tmp_path / "far.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "far.onnx")
    batch = far.preprocess.collate([far.preprocess.prepare(path) for path in paths])
    answer = session.run(None, {session.get_inputs()[0].name: batch})[0]
    np.testing.assert_allclose(answer[:, 0], found, atol=1e-4, rtol=0)
    scores = [headstart.evaluate(model, items).metrics["mae"] for model, items in ((near, few), (far, data))]
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)


@pytest.mark.parametrize("shift", [-SHIFT, 1e12])
def test_targets_are_centred_in_float64(shift):
    base = np.linspace(0, 3, 20)
    dataset = centre_values(values_of(base + shift))
    targets = encode_targets(dataset, [sample.id for sample in dataset.samples], ())
    np.testing.assert_allclose(targets, base - base.mean(), atol=4 * np.spacing(abs(shift)))
    assert np.float32(targets).std() == pytest.approx(base.std(), rel=1e-3)


def test_values_near_zero_stay_as_they_are():
    assert centre_values(values_of([1.0, 2.0, 3.0])).offset == 0
    assert centre_values(values_of([5.0, 5.0])).offset == 5
    assert centre_values(values_of(np.array([-1.0, 1.0]) + 2 * OFFSET_FROM)).offset == 2 * OFFSET_FROM
    assert (format_value(SHIFT + 0.25), format_value(1.23456789)) == ("1700000000.25", "1.23457")


def test_the_exact_regressor_keeps_the_digits_of_its_targets():
    from headstart.sklearn import ExactRidgeRegressor

    generator = np.random.default_rng(0)
    features = generator.standard_normal((80, 4))
    targets = features @ [1.0, 2.0, -1.0, 0.5] + generator.standard_normal(80)
    near, far = (ExactRidgeRegressor().fit(features, targets + shift) for shift in (0.0, SHIFT))
    assert far.score(features, targets + SHIFT) == pytest.approx(near.score(features, targets), rel=1e-6)
