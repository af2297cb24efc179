"""Frames and series of pandas and polars as items, and predictions as frames."""

import numpy as np
import pytest

from headstart.errors import DataError, HeadstartError, SettingError
from headstart.model.frames import cells_of

pd = pytest.importorskip("pandas")


@pytest.fixture
def paths(pictures):
    return [str(path) for path in sorted(pictures.glob("*/*"))[:20:5]]


def test_a_model_takes_frames_and_series(model, paths):
    pl = pytest.importorskip("polars")
    wanted = [(each.item, each.label) for each in model.predict(paths)]
    frame = pd.DataFrame({"weight": range(4), "path": paths}, index=["w", "x", "y", "z"])
    arrays = (frame.path.to_numpy(), np.array(paths))
    for items in (*arrays, frame, frame.path, frame[["path"]], pl.DataFrame({"path": paths, "n": range(4)}), pl.Series(paths)):
        assert [(each.item, each.label) for each in model.predict(items)] == wanted
    for empty in (frame.iloc[:0], frame.path.iloc[:0], np.array([], object)):
        with pytest.raises(DataError, match="no item"):
            model.predict(empty)
    with pytest.raises(DataError, match="no column"):
        model.predict(pd.DataFrame({"a": paths, "b": paths}))


def test_predictions_as_a_frame_keep_the_index(model, paths, tmp_path):
    pl = pytest.importorskip("polars")
    items = pd.Series(paths, index=[7, 5, 3, 1])
    found = model.predict(items, as_frame=True)
    assert list(found.index) == [7, 5, 3, 1] and list(found["item"]) == paths
    assert list(found["label"]) == [each.label for each in model.predict(paths)]
    columns = [f"probability_{label}" for label in model.labels]
    np.testing.assert_allclose(found[columns].sum(axis=1), 1, atol=1e-5)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    items[5] = str(tmp_path / "broken.jpg")
    assert list(model.predict(items, as_frame=True, unreadable="skip").index) == [7, 3, 1]
    assert list(model.predict(paths, as_frame=True).index) == [0, 1, 2, 3]
    assert isinstance(model.predict(pl.Series(paths), as_frame=True), pl.DataFrame)


def test_cells_of_frames():
    twice = pd.DataFrame([["a", "b"]], columns=["path", "path"])
    with pytest.raises(DataError, match="more than once"):
        cells_of(twice)
    assert cells_of(pd.DataFrame({"anything": ["a", "b"]})) == ["a", "b"]


def test_the_extractor_takes_a_row_for_an_item(paths):
    from headstart.sklearn import FeatureExtractor

    extractor = FeatureExtractor().fit([])
    wanted = extractor.transform(paths)
    frame = pd.DataFrame({"path": paths, "label": "x"})
    for items in (frame, frame.path, frame[["path"]], frame[["path"]].to_numpy(), np.array(paths)):
        np.testing.assert_array_equal(extractor.transform(items), wanted)
    for wrong in (paths[0], b"bytes", pd.DataFrame({"a": paths, "b": paths})):
        with pytest.raises(DataError):
            extractor.transform(wrong)


@pytest.mark.parametrize("weights", [{"1": 2.0}, {2: 1.0}, {0: 1.0, "b": 3.0}])
def test_class_weights_of_no_class_are_refused(weights):
    from headstart.sklearn import ExactLogisticClassifier, ExactRidgeClassifier

    features, labels = np.random.default_rng(0).standard_normal((40, 3)), np.arange(40) % 2
    for kind in (ExactRidgeClassifier, ExactLogisticClassifier):
        with pytest.raises(SettingError, match="no label of y"):
            kind(class_weight=weights).fit(features, labels)
        kind(class_weight={np.int64(1): 2.0}).fit(features, labels)
    assert issubclass(SettingError, HeadstartError)
