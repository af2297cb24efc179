"""A language model adapted to verses: python benchmarks/language.py [--quick] [--only PART ...].

few      a quarter of the songs and poems, 180 of them
all      all 720
epochs   an epoch of last:1 beside one of the transformers Trainer with the same layers frozen and the same blocks

A GPT-2 of 4 layers, 256 wide, with a byte-level vocabulary of 4,096, learns English from prose (the Jargon File, fortunes, the
King James Bible: benchmarks/data/reading.py), once, and is kept in the work folder. Then `headstart fit --task generate` adapts
it to songs and poems. Perplexity of the same held-out verses: of the model as it was, adapted, and of the same architecture
trained on the verses alone (with the vocabulary of the prose, which favours it), at the rate of the rule and at the higher one
that the prose was learned with, whichever ends lower. Half an hour on two cores, and before it half an hour to learn the prose.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import measure
from measure import HEADSTART, HERE, WORK, at_least, at_most, run_timed, say

LAYERS, WIDTH, HEADS, CONTEXT, VOCABULARY = 4, 256, 4, 256, 4096
FEW_VERSES = 80
PROSE_BYTES = {True: 400_000, False: 8_000_000}
# Weights that begin at random want larger steps than those that have learned.
RATE_FROM_RANDOM = "1.5e-3"
# Below this share of another's perplexity it is well below.
WELL_BELOW = 0.8
TIMES_FASTER = 2.0


def prepare_texts(*, quick: bool) -> tuple[Path, Path]:
    """The prose, of which a quick run reads the beginning, and the verses."""
    large, small = WORK / "prose.txt", WORK / "verses.jsonl"
    if not small.exists():
        run_timed([sys.executable, HERE / "data" / "reading.py", WORK / "reading", large, small])
    part = WORK / f"prose-{PROSE_BYTES[quick]}.txt"
    if not part.exists():
        # Pieces from the beginning to the end, so that every kind of prose is in them.
        text = large.read_text(encoding="utf-8")
        stride = max(1, len(text) * 20_000 // PROSE_BYTES[quick] // 20_000)
        pieces = [text[start : start + 20_000] for start in range(0, len(text), 20_000)][::stride]
        part.write_text("".join(pieces), encoding="utf-8")
    few = WORK / "verses-few.jsonl"
    few.write_text("".join(small.read_text(encoding="utf-8").splitlines(keepends=True)[:FEW_VERSES]), encoding="utf-8")
    return part, few if quick else small


def prepare_untrained(prose: Path) -> Path:
    """The architecture with random weights, and the vocabulary of the prose."""
    folder = WORK / f"gpt2-untrained-{prose.stem}"
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(prose)], trainer)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    end = wrapped.eos_token_id
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(wrapped),
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=CONTEXT,
        bos_token_id=end,
        eos_token_id=end,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def fit(corpus: Path, out: Path, backbone: Path, strategy: str, *more: str) -> dict[str, Any]:
    """One `headstart fit --task generate`, and what its report says."""
    words = ["--task", "generate", "--backbone", f"file:{backbone}", "--strategy", strategy, "--out", out, "--json", *more]
    done = run_timed([HEADSTART, "fit", corpus, *words])
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    attempts = [
        {
            "strategy": attempt["strategy"],
            "told": attempt["told"],
            "epoch_seconds": [round(row["seconds"], 3) for row in attempt["history"]],
            "valid_losses": [round(row["valid_loss"], 4) for row in attempt["history"]],
            "states": attempt["states"],
        }
        for attempt in report["tuning"]["attempts"]
    ]
    told = {name: done.told[name] for name in ("test", "strategy", "counts", "seconds")}
    return {**told, "attempts": attempts, "samples": report["samples"], "wall_seconds": done.seconds}


def prepare_sources(*, quick: bool) -> tuple[Path, Path, Path]:
    """The model that has learned the prose, the same one untrained, and the verses."""
    prose, verses = prepare_texts(quick=quick)
    untrained = prepare_untrained(prose)
    pretrained = WORK / f"gpt2-{prose.stem}.hs"
    if not (pretrained / "headstart.json").exists():
        say("pre-training")
        fit(prose, pretrained, untrained, "full", "--epochs", "1", "--learning-rate", RATE_FROM_RANDOM)
    return pretrained, untrained, verses


def measure_few(options: Any) -> dict[str, Any]:
    """A quarter of the verses, spread over all of them."""
    pretrained, untrained, verses = prepare_sources(quick=options.quick)
    some = WORK / "verses-quarter.jsonl"
    some.write_text("".join(verses.read_text(encoding="utf-8").splitlines(keepends=True)[::4]), encoding="utf-8")
    return adapt(pretrained, untrained, some, quick=options.quick)


def measure_all(options: Any) -> dict[str, Any]:
    """All verses."""
    return adapt(*prepare_sources(quick=options.quick), quick=options.quick)


def adapt(pretrained: Path, untrained: Path, verses: Path, *, quick: bool) -> dict[str, Any]:
    """What `auto` makes of what learned the prose, and the whole network from nothing."""
    epochs = ("--epochs", "3") if quick else ()
    found: dict[str, Any] = {"pretraining": json.loads((pretrained / "report.json").read_text(encoding="utf-8"))["summary"]}
    with measure.scratch_folder() as scratch:
        found["auto"] = fit(verses, scratch / "adapted.hs", pretrained, "auto", *epochs)
        test = found["auto"]["test"]
        say(f"auto: {test['unadapted_perplexity']:.1f} to {test['perplexity']:.1f}")
        found["from scratch"] = {
            name: fit(verses, scratch / f"{name}.hs", untrained, "full", *epochs, *rate)
            for name, rate in (("rule", ()), ("higher rate", ("--learning-rate", RATE_FROM_RANDOM)))
        }
    alone = {name: one["test"]["perplexity"] for name, one in found["from scratch"].items()}
    found["of_unadapted"] = test["perplexity"] / test["unadapted_perplexity"]
    found["of_scratch"] = test["perplexity"] / min(alone.values())
    say(f"from scratch: {alone}; auto is at {found['of_scratch']:.2f} of the lower")
    return found


def measure_epochs(options: Any) -> dict[str, Any]:
    """Seconds of an epoch of last:1, by us and by the Trainer, in turn."""
    pretrained, _, verses = prepare_sources(quick=options.quick)
    peer = [sys.executable, HERE / "peers" / "trainer_last.py", pretrained, verses, str(CONTEXT), "1"]
    seconds: dict[str, list[float]] = {"headstart": [], "trainer": []}
    with measure.scratch_folder() as scratch:
        for _ in range(1 if options.quick else 2):
            ours = fit(verses, scratch / "adapted.hs", pretrained, "last:1", "--epochs", "4")
            seconds["headstart"] += ours["attempts"][0]["epoch_seconds"]
            seconds["trainer"] += run_timed(peer).told["seconds"]
    told = {side: measure.summarise(values) for side, values in seconds.items()}
    return {"seconds": told, "times_faster": told["trainer"]["median"] / told["headstart"]["median"]}


PARTS: measure.Parts = {"few": measure_few, "all": measure_all, "epochs": measure_epochs}


def judge(parts: dict[str, Any]) -> list[measure.Target]:
    """Each target with what was measured, or None where its part has not run."""
    few, whole, epochs = (parts.get(name) for name in PARTS)
    return [
        at_most("few verses: perplexity adapted / unadapted", few and few["of_unadapted"], WELL_BELOW),
        at_most("few verses: perplexity adapted / trained from scratch", few and few["of_scratch"], WELL_BELOW),
        at_most("all verses: perplexity adapted / unadapted", whole and whole["of_unadapted"], WELL_BELOW),
        at_most("all verses: perplexity adapted / trained from scratch", whole and whole["of_scratch"], WELL_BELOW),
        at_least("last:1: seconds an epoch, the transformers Trainer / ours", epochs and epochs["times_faster"], TIMES_FASTER),
    ]


def main() -> None:
    options = measure.read_options(__doc__, lambda parser: measure.add_only(parser, PARTS))
    data = "songs and poems of Debian's fortunes; pre-trained on prose (benchmarks/data/reading.py)"
    measure.measure_parts("language", PARTS, judge, data=data, options=options)


if __name__ == "__main__":
    main()
