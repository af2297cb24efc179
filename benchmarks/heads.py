"""Exact heads against scikit-learn on the same data, folds and penalties: python benchmarks/heads.py [--cases NAME ...].

Writes benchmarks/results/heads.json: for each case the median seconds of both sides, their ratio, and how far apart the
cross-validated log-losses (logistic) or the chosen penalties (ridge) are. The sides run in turn, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegressionCV, RidgeClassifierCV
from sklearn.model_selection import PredefinedSplit
from threadpoolctl import threadpool_info, threadpool_limits

from headstart.heads.folds import make_folds
from headstart.heads.logistic import cross_validate_logistic, default_logistic_penalties, fit_logistic
from headstart.heads.ridge import default_ridge_penalties, fit_ridge
from headstart.heads.scaling import learn_scaling
from headstart.heads.temperature import log_losses

RESULT_PATH = Path(__file__).parent / "results" / "heads.json"
WIDTH = 1280
TOLERANCES = (1e-4, 1e-5, 1e-6)
EQUAL_LOG_LOSS = 1e-3
CASES = {"ridge-5000": (5000, 100), "logistic-643": (643, 10), "logistic-5000": (5000, 100)}


def make_clusters(num_rows: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes in non-negative, skewed, correlated features, much as a pooled ReLU layer gives them.

    The classes overlap so far that the best penalty lies inside the grid: were it at the weak end, scikit-learn's default
    tolerance would stop short there, and the comparison at equal log-loss would flatter us.
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_rows)
    labels[:num_classes] = np.arange(num_classes)
    rank = 120
    mixing = generator.standard_normal((rank, WIDTH)) * (np.arange(1, rank + 1) ** -0.6)[:, None]
    centres = generator.standard_normal((num_classes, rank)) * 0.32
    hidden = centres[labels] + generator.standard_normal((num_rows, rank))
    noise = 0.5 * generator.standard_normal((num_rows, WIDTH))
    return np.maximum(hidden @ mixing + noise - 0.5, 0).astype(np.float32), labels


def seconds_of(job: Callable[[], object], repeats: int) -> tuple[float, object]:
    taken, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = job()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), result


def compare_ridge(num_rows: int, num_classes: int, repeats: int) -> dict[str, object]:
    features, labels = make_clusters(num_rows, num_classes, seed=0)
    penalties = default_ridge_penalties(WIDTH)
    scaled = learn_scaling(features).apply(features.astype(np.float64))
    ours, fit = seconds_of(lambda: fit_ridge(features, labels, num_classes=num_classes, penalties=penalties), repeats)
    theirs, model = seconds_of(lambda: RidgeClassifierCV(alphas=penalties).fit(scaled, labels), repeats)
    same = float((fit.head.scores(features).argmax(axis=1) == model.predict(scaled)).mean())
    return {
        "seconds": {"headstart": ours, "scikit-learn RidgeClassifierCV": theirs},
        "times_faster": theirs / ours,
        "penalty": {"headstart": fit.head.penalty, "scikit-learn": float(model.alpha_)},
        "same_predictions": same,
        "repeats": repeats,
    }


def compare_logistic(num_rows: int, num_classes: int, repeats: int) -> dict[str, object]:
    features, labels = make_clusters(num_rows, num_classes, seed=0)
    penalties = default_logistic_penalties(WIDTH)
    folds = make_folds(labels, task="single", seed=0)
    scaled = learn_scaling(features).apply(features.astype(np.float64))
    settings = {"num_classes": num_classes, "penalties": penalties, "folds": folds}
    ours, head = seconds_of(lambda: fit_logistic(features, labels, **settings), repeats)
    out_of_fold = cross_validate_logistic(features, labels, folds, penalties, num_classes=num_classes)
    own_losses = [float(log_losses(scores, labels).mean()) for scores in out_of_fold]
    # scikit-learn's default tolerance can stop short of its own minimum; it is made stricter until both agree on the log-loss.
    attempts = []
    for tolerance in TOLERANCES:
        theirs, penalty, their_losses = time_scikit_learn(scaled, labels, folds, penalties, tolerance, repeats)
        attempts.append({"tol": tolerance, "seconds": theirs, "best_log_loss": min(their_losses)})
        if abs(min(their_losses) - min(own_losses)) <= EQUAL_LOG_LOSS:
            break
    return {
        "seconds": {"headstart": ours, "scikit-learn LogisticRegressionCV": theirs},
        "times_faster": theirs / ours,
        "penalty": {"headstart": head.penalty, "scikit-learn": penalty},
        "best_log_loss": {"headstart": min(own_losses), "scikit-learn": min(their_losses)},
        "equal_log_loss": abs(min(their_losses) - min(own_losses)) <= EQUAL_LOG_LOSS,
        "scikit_learn_attempts": attempts,
        "log_loss_by_penalty": {"headstart": own_losses, "scikit-learn": their_losses},
        "repeats": repeats,
    }


def time_scikit_learn(
    scaled: np.ndarray, labels: np.ndarray, folds: np.ndarray, penalties: np.ndarray, tolerance: float, repeats: int
) -> tuple[float, float, list[float]]:
    """Median seconds, the chosen penalty, and the cross-validated log-loss at each penalty."""
    settings = {"scoring": "neg_log_loss", "tol": tolerance, "max_iter": 5000, "use_legacy_attributes": False}
    model = LogisticRegressionCV(Cs=1 / penalties, cv=PredefinedSplit(folds), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds, _ = seconds_of(lambda: model.fit(scaled, labels), repeats)
    sizes = np.bincount(folds)
    losses = -(sizes @ model.scores_.reshape(len(sizes), len(penalties))) / len(labels)
    return seconds, float(1 / np.squeeze(model.C_)), losses.tolist()


def hardware() -> dict[str, object]:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {"cpu": model, "cores": os.cpu_count(), "blas": threadpool_info()[0] if threadpool_info() else None}


def commit() -> str | None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3, help="of the small cases; the large logistic one runs once")
    parser.add_argument("--threads", type=int, help="of both sides' linear algebra; on a machine at rest, leave it out")
    options = parser.parse_args()
    if options.threads:
        threadpool_limits(options.threads)
    earlier = json.loads(RESULT_PATH.read_text(encoding="utf-8"))["cases"] if RESULT_PATH.exists() else {}
    cases: dict[str, object] = dict(earlier)
    for name in options.cases:
        num_rows, num_classes = CASES[name]
        compare = compare_ridge if name.startswith("ridge") else compare_logistic
        repeats = 1 if name == "logistic-5000" else options.repeats
        print(f"{name}: {num_rows} rows, {WIDTH} columns, {num_classes} classes", flush=True)
        result = compare(num_rows, num_classes, repeats)
        result["load_average_after"] = os.getloadavg()[0]
        cases[name] = {"rows": num_rows, "columns": WIDTH, "classes": num_classes, **result}
        print(json.dumps(cases[name], indent=1), flush=True)
        report = {
            "command": "python benchmarks/heads.py " + " ".join(sys.argv[1:]),
            "data": "synthetic: overlapping class clusters of rank 120 in 1,280 rectified features, seed 0 (make_clusters)",
            "hardware": hardware(),
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "scikit-learn": sklearn.__version__},
            "commit": commit(),
            "cases": cases,
        }
        RESULT_PATH.parent.mkdir(exist_ok=True)
        RESULT_PATH.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
