"""Texts against others' tools: SetFit's trainer, and sentence-transformers' encode."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import forward
import headstart
import measure
from headstart.backbones import locate
from headstart.data.rows import ReadOptions
from headstart.data.source import read_with_findings
from headstart.features import compile_prefix, extract
from headstart.features.prefix import Prefix
from headstart.features.store import clear
from headstart.inference import ordered_map
from headstart.preprocess.batches import in_batches
from headstart.preprocess.recipe import Preprocess
from headstart.records import Sample
from headstart.runtime import cache_root
from headstart.select.precision import choose_precision
from measure import HEADSTART, HERE, run_timed, say, summarise
from text_tables import OTHERS, Rows, draw_few, read_rows, write_rows

LABELS_A_CLASS = (8, 16)
WAYS = ("auto", "contrastive")
WARMING = 1_000
"""The seed of a draw that no number is taken from."""


def measure_setfit(movies: Rows, options: Any) -> dict[str, Any]:
    """`fit` against SetFit's trainer, on the same labels and backbone; both answer the same other texts."""
    sizes, draws, asked = ((8,), 1, 60) if options.quick else (LABELS_A_CLASS, 5, OTHERS)
    with measure.scratch_folder() as scratch:
        # What a cache holds after its first fit of any texts: the network, whole and cut.
        for way in WAYS:
            _write_few(movies, sizes[-1], scratch, seed=WARMING, asked=1)
            _fit_and_ask(way, scratch)
        found = {str(size): [_hold_round(movies, size, scratch, draw, asked) for draw in range(draws)] for size in sizes}
    return {"labels_a_class": {size: _told_of(rounds) for size, rounds in found.items()}}


def _hold_round(movies: Rows, a_class: int, scratch: Path, draw: int, asked: int) -> dict[str, Any]:
    _write_few(movies, a_class, scratch, seed=draw, asked=asked)
    sides: dict[str, Any] = {}
    for way in WAYS:
        clear(scratch / "cache")  # no side has seen the texts
        sides[way] = _fit_and_ask(way, scratch)
    done = run_timed([sys.executable, HERE / "peers" / "setfit_trainer.py", scratch / "train.csv", scratch / "test.csv"])
    sides["setfit"] = done.told | {"process_seconds": done.seconds}
    told = ", ".join(f"{side} {one['accuracy']:.3f} in {one['seconds']:.1f} s" for side, one in sides.items())
    say(f"{a_class} labels a class, draw {draw}: {told}")
    return {"seed": draw} | sides


def _write_few(movies: Rows, a_class: int, scratch: Path, *, seed: int, asked: int) -> None:
    train, test = draw_few(movies, 2 * a_class, seed=seed)
    write_rows(scratch / "train.csv", train, ("text", "label"))
    write_rows(scratch / "test.csv", test[:asked], ("text", "label"))


def _told_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    mean = {side: float(np.mean([one[side]["accuracy"] for one in rounds])) for side in ("auto", "contrastive", "setfit")}
    seconds = {side: float(np.median([one[side]["seconds"] for one in rounds])) for side in mean}
    faster = {side: seconds["setfit"] / seconds[side] for side in ("auto", "contrastive")}
    return {"accuracy": mean, "seconds": seconds, "times_faster": faster, "rounds": rounds}


def _fit_and_ask(strategy: str, scratch: Path) -> dict[str, Any]:
    out, cache = scratch / f"{strategy}.hs", {"HEADSTART_CACHE": str(scratch / "cache")}
    columns = ["--item-column", "text", "--label-column", "label", "--modality", "text"]
    words = [HEADSTART, "fit", scratch / "train.csv", *columns, "--strategy", strategy, "--out", out, "--json"]
    done = run_timed(words, **cache)
    test = read_rows(scratch / "test.csv")
    answers = headstart.load(out).predict([row["text"] for row in test])
    right = [answer.label == row["label"] for answer, row in zip(answers, test, strict=True)]
    shutil.rmtree(out)
    return {
        "accuracy": float(np.mean(right)),
        "seconds": done.told["seconds"]["total"],
        "process_seconds": done.seconds,
        "strategy": done.told["strategy"],
        "steps": done.told["seconds"],
    }


def measure_encode(mails: Rows, options: Any) -> dict[str, Any]:
    """Features of mails, as `fit` would compute them and in float32, against `SentenceTransformer.encode` and bare networks."""
    count, repeats = (64, 2) if options.quick else (500, 3)
    order = np.random.default_rng(0).permutation(len(mails))
    texts = [mails[place]["text"] for place in order[:count]]
    for name in measure.FOREIGN_SETTINGS:
        os.environ.pop(name, None)
    with measure.scratch_folder() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch / "cache")
        prefix = compile_prefix(locate("all-minilm-l6-v2", modality="text")).wait()
        preprocess = prefix.spec.preprocess.with_fitting("head")
        labelled = [(mails[place]["text"], mails[place]["label"]) for place in order]
        dataset = read_with_findings(labelled, ReadOptions(modality="text")).dataset
        choice = choose_precision(prefix, preprocess, dataset, precision="auto", seed=0)
        say(f"fit would compute in {choice.prefix.precision}: {choice.reason}")
        (scratch / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        sides = [_Encoding(one, preprocess, texts) for one in dict.fromkeys((choice.prefix, prefix))]
        for number in range(repeats):
            for side in sides:
                side.run_once()
                told = ", ".join(f"{how} {count / taken[-1]:.1f}/s" for how, taken in side.seconds.items())
                say(f"run {number + 1}, {side.prefix.precision}: {told}")
        clear(cache_root())
        ours = extract(prefix, preprocess, [Sample(id="0", item=texts[0])]).features("last")[0]
        done = run_timed([sys.executable, HERE / "peers" / "sentence_encode.py", scratch / "texts.json", str(repeats)])
    theirs = np.array(done.told["first"])
    cosine = float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
    their_middle = float(np.median(done.told["seconds"]))
    found = {side.prefix.precision: side.told() | {"times_faster": their_middle / side.middle("ours")} for side in sides}
    say(f"sentence-transformers {count / their_middle:.1f}/s, cosine of the first text in float32 {cosine:.6f}")
    return {
        "mails": count,
        "fit_computes_in": choice.prefix.precision,
        "reason": choice.reason,
        "precisions": found,
        "sentence_transformers_seconds": summarise(done.told["seconds"]),
        "times_faster_than_encode": found[choice.prefix.precision]["times_faster"],
        "of_bare_own_arrangement": found[choice.prefix.precision]["of_bare_own_arrangement"],
        "cosine_of_the_first_text": cosine,
    }


class _Encoding:
    """One network on the same mails: by the product's own path, and bare on batches that are ready."""

    def __init__(self, prefix: Prefix, preprocess: Preprocess, texts: list[str]) -> None:
        self.prefix = prefix
        self.seconds: dict[str, list[float]] = {"ours": [], "bare_own_arrangement": [], "bare_default": []}
        self._preprocess = preprocess
        self._samples = [Sample(id=str(number), item=text) for number, text in enumerate(texts)]
        by_size = sorted(self._samples, key=lambda sample: preprocess.size(sample.item))
        groups = in_batches(by_size, prefix.batch_size, lambda sample: preprocess.size(sample.item))
        self._batches = [preprocess.collate([preprocess.prepare(one.item, name=one.id) for one in few]) for few in groups]
        self._session = forward.default_session(prefix.model_path)
        extract(prefix, preprocess, self._samples[: 4 * prefix.batch_size])

    def run_once(self) -> None:
        """Every way once, from an empty store."""
        clear(cache_root())
        ways = {"ours": self._extract, "bare_own_arrangement": self._run_alone, "bare_default": self._run_default}
        for name, way in ways.items():
            self.seconds[name].append(_timed(way))

    def _extract(self) -> None:
        extract(self.prefix, self._preprocess, self._samples)

    def _run_alone(self) -> None:  # the batches are ready: nothing is left but the network
        for _ in ordered_map(self.prefix, self._batches, num_workers=self.prefix.num_workers):
            pass

    def _run_default(self) -> None:
        for batch in self._batches:
            self._session.run(["features"], {self._preprocess.input_name: batch})

    def middle(self, way: str) -> float:
        """Median seconds."""
        return float(np.median(self.seconds[way]))

    def told(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "seconds": {way: summarise(taken) for way, taken in self.seconds.items()},
            "of_bare_own_arrangement": self.middle("bare_own_arrangement") / self.middle("ours"),
            "of_bare_default": self.middle("bare_default") / self.middle("ours"),
        }


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
