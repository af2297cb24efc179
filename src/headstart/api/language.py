"""The story of a language model: a corpus in; an adapted, evaluated, saved model that writes out. Loads torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

from headstart import runtime
from headstart.api.adaptation import CHECKPOINTS, clear_traces
from headstart.api.timing import Clock
from headstart.api.workplace import open_in_place, workplace
from headstart.backbones.causal import CausalBackbone, open_causal
from headstart.config import FitSettings
from headstart.features.device import accelerator
from headstart.language.attempts import Choice, Ground, choose
from headstart.language.corpus import Corpus, read_corpus
from headstart.language.judging import Losses, changed, measure
from headstart.language.model import LanguageModel
from headstart.language.packing import Blocks, check_length, pack
from headstart.language.page import render_page, write_card
from headstart.language.parts import Parts, part
from headstart.language.rules import context_of
from headstart.language.sampling import write_whole
from headstart.language.saving import Written, find_language_model, packages, save_model
from headstart.model.manifest import FORMAT, Manifest
from headstart.tuning.callbacks.base import Callback

NUM_SAMPLES, SAMPLE_TOKENS, PROMPT_WORDS = 3, 60, 6
MOST_PROMPT = 300
"""Characters of a prompt that is the user's own."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the test says, read once."""

    before: Losses
    after: Losses
    samples: list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Told:
    """All that the report is made of."""

    backbone: CausalBackbone
    settings: FitSettings
    corpus: Corpus
    parts: Parts
    blocks: dict[str, Blocks]
    choice: Choice
    evidence: Evidence


def fit_language(
    data: Any,  # noqa: ANN401 - a path, or texts in memory
    settings: FitSettings,
    *,
    out: str | Path | None,
    callbacks: Sequence[Callback] = (),
    progress: Callable[[str, int, int], None] | None = None,
    overwrite: bool = False,
) -> LanguageModel:
    """Adapt a language model to a corpus, evaluate it, and save it.

    Args:
        data: a text file, a folder of them, a .jsonl of texts or of prompts and completions; or such in memory.
        settings: with the backbone and all numbers.
        out: where the model's folder goes; None keeps it in a temporary folder.
        callbacks: told of every step of tuning.
        progress: told of the steps done.
        overwrite: whether a saved model at `out` is replaced.

    Returns:
        The saved model, opened.

    Raises:
        HeadstartError: if corpus, backbone, an option or the place to write to cannot be used.
    """
    clock = Clock()
    runtime.raise_malloc_thresholds()
    torch.set_num_threads(runtime.num_cores())
    with workplace(out, resume=settings.resume, overwrite=overwrite) as folder:
        with clock.step("read"):
            corpus = read_corpus(data)
            parts = part(corpus, seed=settings.seed)
            backbone = open_causal(find_language_model(settings.backbone))
            blocks = _pack(parts, backbone, context_of(backbone, settings))
            backbone.network.to(accelerator())
        with clock.step("tune"):
            ground = Ground(
                backbone=backbone,
                train=blocks["train"],
                watch=blocks["watch"],
                valid=blocks["valid"],
                settings=settings,
                folder=folder,
                checkpoints=folder / CHECKPOINTS,
                data=corpus.source,
                callbacks=tuple(callbacks),
                progress=progress,
            )
            choice = choose(ground)
        with clock.step("evaluate"):
            evidence = _gather(backbone, blocks["test"], parts, choice, settings.seed)
        told = Told(
            backbone=backbone,
            settings=settings,
            corpus=corpus,
            parts=parts,
            blocks=blocks,
            choice=choice,
            evidence=evidence,
        )
        backbone.network.cpu()
        _write(folder, told, _tell(told, out, clock.seconds()))
        clear_traces(folder)
        return cast(LanguageModel, open_in_place(folder, out, overwrite=overwrite))


def _pack(parts: Parts, backbone: CausalBackbone, context: int) -> dict[str, Blocks]:
    sides = {"train": parts.train, "watch": parts.watch, "valid": parts.valid, "test": parts.test}
    found = {name: pack(documents, backbone.tokenizer, context) for name, documents in sides.items()}
    for name, blocks in found.items():
        check_length(blocks, name)
    return found


def _changes(choice: Choice) -> dict[str, torch.Tensor]:
    return {} if choice.kept is None or choice.kept.trained is None else choice.kept.trained.changes


def _gather(backbone: CausalBackbone, test: Blocks, parts: Parts, choice: Choice, seed: int) -> Evidence:
    """Losses and samples, of the model as it was and as it is."""
    prompts = [_prompt(document.prompt, document.text) for document in parts.test[:NUM_SAMPLES]]

    def write(prompt: str, number: int) -> str:
        return write_whole(backbone, prompt, max_new_tokens=SAMPLE_TOKENS, seed=seed + number)

    before = measure(backbone, test)
    written = [write(prompt, number) for number, prompt in enumerate(prompts)]
    with changed(backbone, _changes(choice)):
        after = measure(backbone, test) if _changes(choice) else before
        samples = [
            {"prompt": prompt, "before": text, "after": write(prompt, number)}
            for number, (prompt, text) in enumerate(zip(prompts, written, strict=True))
        ]
    return Evidence(before=before, after=after, samples=samples)


def _prompt(prompt: str, text: str) -> str:
    """A prompt of the user's own, or the first words of a text."""
    return prompt[-MOST_PROMPT:] if prompt else " ".join(text.split()[:PROMPT_WORDS])


def _tell(told: Told, out: str | Path | None, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of report.json."""
    choice, blocks, seed = told.choice, told.blocks, told.settings.seed
    findings = [*told.corpus.findings, *told.parts.findings]
    after, before = (losses.as_json(seed) for losses in (told.evidence.after, told.evidence.before))
    kept = choice.kept.strategy if choice.kept else "extract"
    info = told.backbone.info
    summary = {
        "artifact": "" if out is None else str(out),
        "modality": "text",
        "task": "generate",
        "backbone": info.name,
        "strategy": kept,
        "labels": [],
        "counts": {
            "documents": len(told.corpus.documents),
            **{f"{name}_tokens": blocks[name].num_tokens for name in ("train", "watch", "valid", "test")},
        },
        "test": after | {f"unadapted_{name}": value for name, value in before.items()},
        "gate": {
            "tried": [attempt.strategy for attempt in choice.attempts if attempt.trained],
            "kept": kept,
            "reason": choice.reason,
        },
        "seconds": seconds,
        "warnings": [finding.message for finding in findings],
    }
    return {
        "summary": summary,
        "headstart_version": version("headstart"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": told.corpus.source,
        "split": told.parts.origin,
        "context": int(blocks["train"].read.shape[1]),
        "unit": f"{len(told.evidence.after.nats)} {told.evidence.after.unit}",
        "backbone": info.as_json(),
        "samples": told.evidence.samples,
        "findings": [asdict(finding) for finding in findings],
        "tuning": {"attempts": [attempt.as_json(kept=attempt is choice.kept) for attempt in choice.attempts]},
    }


def _write(folder: Path, told: Told, content: dict[str, Any]) -> None:
    info, by_name = told.backbone.info, told.backbone.info.name.startswith("hf:")
    changes = _changes(told.choice)
    manifest = Manifest(
        format=FORMAT,
        headstart_version=content["headstart_version"],
        created=content["created"],
        task="generate",
        modality="text",
        labels=(),
        thresholds=(),
        preprocess={"kind": "tokens", "context": content["context"]},
        backbone=info.as_json() | ({"base": info.name, "base_sha256": info.sha256} if by_name else {"base": "artifact"}),
        strategy=content["summary"]["strategy"],
        cut="",
        block="",
        views=(),
        settings=asdict(told.settings),
        packages=packages(),
        files={},
    )
    texts = {
        "report.json": json.dumps(content, ensure_ascii=False, indent=1),
        "report.html": render_page(content),
        "README.md": write_card(content),
    }
    written = Written(manifest=manifest, texts=texts, golden=told.blocks["train"], changes=changes)
    with changed(told.backbone, changes):
        save_model(folder, told.backbone, written, whole=not by_name)
