import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import SkipTestWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from headstart.errors import BackboneError, DataError, SettingError
from headstart.sklearn import ExactLogisticClassifier, ExactRidgeClassifier, ExactRidgeRegressor, FeatureExtractor


@parametrize_with_checks([ExactRidgeClassifier(), ExactLogisticClassifier(), ExactRidgeRegressor()])
def test_scikit_learns_own_battery(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", [ExactRidgeClassifier(), ExactLogisticClassifier()])
def test_string_labels_come_back_and_probabilities_agree(estimator):
    features, numbers = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[numbers]
    estimator.fit(features, names)
    probabilities = estimator.predict_proba(features)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (estimator.classes_[probabilities.argmax(axis=1)] == estimator.predict(features)).all()
    assert estimator.score(features, names) > 0.8


@pytest.mark.parametrize("estimator", [ExactRidgeClassifier(), ExactLogisticClassifier()])
def test_two_classes_have_one_row_and_the_second_class_is_positive(estimator):
    features, numbers = load_iris(return_X_y=True)
    kept = numbers > 0
    estimator.fit(features[kept], numbers[kept])
    assert estimator.coef_.shape == (1, 4)
    scores = estimator.decision_function(features[kept])
    assert ((scores > 0) == (estimator.predict(features[kept]) == 2)).all()
    assert ((estimator.predict_proba(features[kept])[:, 1] > 0.5) == (scores > 0)).all()


def test_works_in_a_pipeline_and_a_grid_search():
    features, labels = load_digits(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), ExactRidgeClassifier())
    search = GridSearchCV(pipeline, {"exactridgeclassifier__scaling": ["global", "root"]}, cv=3)
    search.fit(features[:600], labels[:600])
    assert search.score(features[600:], labels[600:]) > 0.85


def test_balanced_weights_find_a_rare_class_more_often():
    generator = np.random.default_rng(0)
    features = generator.standard_normal((400, 5))
    labels = np.r_[np.zeros(380, int), np.ones(20, int)]
    features[labels == 1, 0] += 1.5
    for kind in (ExactRidgeClassifier, ExactLogisticClassifier):
        found = [
            kind(class_weight=weight).fit(features, labels).predict(features)[labels == 1].mean()
            for weight in (None, "balanced")
        ]
        assert found[1] > found[0] + 0.2
        by_hand = kind(class_weight={0: 400 / 760, 1: 400 / 40}).fit(features, labels)
        assert by_hand.predict(features)[labels == 1].mean() == found[1]


def test_a_wrong_setting_says_what_would_be_right():
    features, labels = load_iris(return_X_y=True)
    with pytest.raises(SettingError, match="balanced"):
        ExactRidgeClassifier(class_weight="equal").fit(features, labels)
    with pytest.raises(SettingError, match="above 0"):
        ExactLogisticClassifier(penalties=[-1.0]).fit(features, labels)
    with pytest.raises(SettingError, match="global, root, standard"):
        ExactRidgeRegressor(scaling="unit").fit(features, labels)


def test_the_extractor_stands_before_a_head_in_a_pipeline(pictures):
    paths = sorted(pictures.glob("*/*"))
    labels = [path.parent.name for path in paths]
    pipeline = make_pipeline(FeatureExtractor(block="multi"), ExactLogisticClassifier())
    pipeline.fit(paths[::2], labels[::2])
    assert pipeline.score(paths[1::2], labels[1::2]) > 0.8
    extractor = pipeline.named_steps["featureextractor"]
    assert pipeline[0].transform(paths[:1]).shape == (1, extractor.n_features_out_)
    assert len(extractor.get_feature_names_out()) == extractor.n_features_out_


def test_the_extractor_takes_paths_arrays_and_pictures_alike(pictures):
    path = next(path for path in sorted(pictures.glob("*/*")) if path.suffix == ".png")
    picture = Image.open(path).convert("RGB")
    features = FeatureExtractor().fit([]).transform([path, str(path), path.read_bytes(), picture, np.asarray(picture)])
    np.testing.assert_allclose(features, features[:1].repeat(5, axis=0), atol=1e-5)


def test_the_extractor_refuses_in_words(tmp_path):
    with pytest.raises(SettingError, match="no block 'blocks.99'"):
        FeatureExtractor(block="blocks.99").fit([])
    with pytest.raises(SettingError, match="geometry"):
        FeatureExtractor(geometry="oblong").fit([])
    with pytest.raises(BackboneError, match="no backbone called 'efficientnet-light0'"):
        FeatureExtractor(backbone="efficientnet-light0").fit([])
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 of 1 items cannot be read"):
        FeatureExtractor().fit([]).transform([tmp_path / "broken.jpg"])


def test_the_extractor_passes_what_scikit_learn_checks_of_things_that_take_no_table():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)  # it says that the checks made for tables do not apply
        checked = check_estimator(FeatureExtractor(), on_skip=None)
    assert checked
    assert {result["status"] for result in checked} == {"passed"}
