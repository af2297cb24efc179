"""Headstart's pieces as scikit-learn estimators, for pipelines and searches.

make_pipeline(FeatureExtractor(), ExactLogisticClassifier()).fit(paths, labels)
"""

from headstart.sklearn.estimators import ExactLogisticClassifier, ExactRidgeClassifier, ExactRidgeRegressor
from headstart.sklearn.extractor import FeatureExtractor

__all__ = ["ExactLogisticClassifier", "ExactRidgeClassifier", "ExactRidgeRegressor", "FeatureExtractor"]
