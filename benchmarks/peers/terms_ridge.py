"""TF-IDF and ridge regression by scikit-learn: python benchmarks/peers/terms_ridge.py TABLE.csv, with text, value and split.

Words and pairs of words, penalty chosen by cross-validation within what trains. Prints one JSON line: R² on what is tested.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline


def main() -> None:
    with Path(sys.argv[1]).open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    sides = [[row for row in rows if row["split"] == side] for side in ("train", "test")]
    (train, given), (test, truth) = (
        ([row["text"] for row in side], np.array([float(row["value"]) for row in side])) for side in sides
    )
    chain = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), Ridge())
    search = GridSearchCV(chain, {"ridge__alpha": [0.3, 1.0, 3.0, 10.0]}, scoring="r2", cv=5).fit(train, given)
    print(json.dumps({"r2": float(r2_score(truth, search.predict(test))), "alpha": search.best_params_["ridge__alpha"]}))


if __name__ == "__main__":
    main()
