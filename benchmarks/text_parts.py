"""Texts that are tuned on, ratings, and what the parts of `texts.py` must reach."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

import measure
from headstart.evidence.intervals import paired_bootstrap
from measure import HERE, WORK, Target, at_least, exactly, run_timed, say
from text_peers import LABELS_A_CLASS
from text_tables import OTHERS, Rows, cache_of, draw_few, fit, write_split

FEW = 100
TUNED_BUDGET = "60m"


def measure_transfer(movies: Rows, products: Rows, options: Any) -> dict[str, Any]:
    """A model adapted on film reviews as the source for product reviews, against the bundled network itself."""
    source, told = _adapt_to_movies(movies, options)
    found = []
    with measure.scratch_folder() as scratch:
        cache, table = cache_of(options, scratch), scratch / "table.csv"
        for draw in range(2 if options.quick else 10):
            train, test = draw_few(products, FEW, seed=draw)
            write_split(table, train, test[: 150 if options.quick else OTHERS], ("text", "label"))
            sides = {}
            for name, backbone in (("own", f"artifact:{source}"), ("bundled", "all-minilm-l6-v2")):
                done = fit(table, scratch / f"{name}.hs", cache, "--backbone", backbone, "--strategy", "extract")
                sides[name] = {"accuracy": done["test"]["accuracy"], "macro_f1": done["test"]["macro_f1"]}
            say(f"draw {draw}: " + ", ".join(f"{side} {one['accuracy']:.4f}" for side, one in sides.items()))
            found.append({"seed": draw} | sides)
    scores = [np.array([one[side]["accuracy"] for one in found]) for side in ("own", "bundled")]
    gain, low, high = paired_bootstrap(*scores, 0)
    return {"labels": FEW, "source": told["strategy"], "draws": found, "gain": gain, "gain_ci95": [low, high]}


def measure_rating(movies: Rows, options: Any) -> dict[str, Any]:
    """The rating itself as a value, against TF-IDF and ridge by scikit-learn on the same split."""
    order = np.random.default_rng(0).permutation(len(movies))[: 400 if options.quick else None]
    rows = [movies[place] for place in order]
    cut = len(rows) // 5
    with measure.scratch_folder() as scratch:
        cache, table = cache_of(options, scratch), scratch / "table.csv"
        write_split(table, rows[cut:], rows[:cut], ("text", "value"))
        theirs = run_timed([sys.executable, HERE / "peers" / "terms_ridge.py", table]).told
        how = ["--task", "value", "--strategy", "extract"]
        told = fit(table, scratch / "rating.hs", cache, *how, label="value")
    say(f"R² {told['test']['r2']:.4f} {told['test']['r2_ci95']}, TF-IDF and ridge {theirs['r2']:.4f}")
    return {"r2": told["test"]["r2"], "r2_ci95": told["test"]["r2_ci95"], "terms_and_ridge": theirs, "num_test": cut}


def measure_tuned(movies: Rows, options: Any) -> dict[str, Any]:
    """`--strategy auto` with time to spend: is the tuned network kept, and what is it worth?"""
    _, told = _adapt_to_movies(movies, options)
    say(f"macro-F1 {told['test']['macro_f1']:.4f}, kept {told['gate']['kept']}: {told['gate']['reason']}")
    return {"budget": told["budget"], **{name: told[name] for name in ("test", "gate", "seconds", "floor")}}


def _adapt_to_movies(movies: Rows, options: Any) -> tuple[Path, dict[str, Any]]:
    """What `auto` makes of four fifths of the film reviews, and what it tells; adapted once, and kept in the work folder."""
    kept, budget = (500, "30s") if options.quick else (len(movies), TUNED_BUDGET)
    model = WORK / f"movies-{kept}.hs"
    told = model.with_suffix(".json")
    if not told.exists():
        rows = [movies[place] for place in np.random.default_rng(0).permutation(len(movies))[:kept]]
        cut = len(rows) // 5
        shutil.rmtree(model, ignore_errors=True)
        with measure.scratch_folder() as scratch:
            table = scratch / "table.csv"
            write_split(table, rows[cut:], rows[:cut], ("text", "label"))
            done = fit(table, model, cache_of(options, scratch), "--strategy", "auto", "--budget", budget)
        told.write_text(json.dumps(done | {"budget": budget}), encoding="utf-8")
    return model, json.loads(told.read_text(encoding="utf-8"))


def judge_parts(parts: dict[str, dict[str, Any]]) -> list[Target]:
    """Each target of these parts with what was measured, or None where its part has not run."""

    def of(part: str, *names: str) -> Any:
        value: Any = parts.get(part)
        for name in names:
            value = None if value is None else value.get(name)
        return value

    targets = []
    for a_class in LABELS_A_CLASS:
        one = ("setfit", "labels_a_class", str(a_class))
        mean = of(*one, "accuracy")
        gained = None if mean is None else mean["auto"] - mean["setfit"]
        told = f"setfit: {a_class} labels a class"
        targets += [
            at_least(f"{told}, seconds of SetFit's trainer / fit's", of(*one, "times_faster", "auto"), 10),
            at_least(f"{told}, mean accuracy of fit less SetFit's", gained, 0.0),
        ]
    low, rating, kept = of("transfer", "gain_ci95"), of("rating"), of("tuned", "gate", "kept")
    above = None if rating is None else rating["r2_ci95"][0] - rating["terms_and_ridge"]["r2"]
    return [
        *targets,
        at_least("encode: seconds of sentence-transformers / ours", of("encode", "times_faster_than_encode"), 1.5),
        at_least("encode: rate / bare network on the same batches", of("encode", "of_bare_own_arrangement"), 0.9),
        at_least("transfer: accuracy gained by one's own source, lower end of 95 %", low and low[0], 1e-9),
        at_least("rating: lower end of R² less that of TF-IDF and ridge", above, 1e-9),
        at_least("tuned: macro-F1 of what auto keeps", of("tuned", "test", "macro_f1"), 0.84),
        exactly("tuned: the gate keeps a tuned network", None if kept is None else float(kept != "extract"), 1),
    ]
