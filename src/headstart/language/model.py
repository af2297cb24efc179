"""A language model as it is used: opened from its folder, asked to write, asked how well it knows a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from headstart.backbones.causal import CausalBackbone
from headstart.errors import SettingError
from headstart.language.corpus import Document
from headstart.language.draws import sampling_of
from headstart.language.judging import measure
from headstart.language.packing import pack
from headstart.language.sampling import write
from headstart.model.manifest import Manifest
from headstart.model.place import copy_model


@dataclass(frozen=True, kw_only=True)
class LanguageReport:
    """The evidence of a language model."""

    content: dict[str, Any]
    """Of report.json."""

    def __str__(self) -> str:
        return headline(self.content)


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A language model that `fit` adapted; `headstart.load` opens one. Needs torch and transformers."""

    folder: Path
    manifest: Manifest
    backbone: CausalBackbone
    report: LanguageReport

    def generate(self, prompt: str = "", **numbers: Any) -> str:  # noqa: ANN401 - those of Sampling
        """Go on from a prompt.

        Args:
            prompt: what comes before; '' begins anew.
            **numbers: max_new_tokens (80), temperature (0.8; 0 always takes the likeliest token), top_p (0.95), top_k (0: no
                limit), seed (0).

        Returns:
            The text without the prompt; the same for the same numbers.

        Raises:
            SettingError: if a number cannot work, or there is none of that name.
        """
        return "".join(self.stream(prompt, **numbers))

    def stream(self, prompt: str = "", **numbers: Any) -> Iterator[str]:  # noqa: ANN401 - as above
        """Go on from a prompt, piece by piece.

        Args:
            prompt: what comes before.
            **numbers: as `generate` takes them.

        Returns:
            Pieces that together are the text.

        Raises:
            SettingError: if a number cannot work, or there is none of that name.
        """
        return write(self.backbone, prompt, sampling_of(numbers))

    def perplexity(self, texts: Sequence[str]) -> float:
        """Between how many tokens the model is in doubt, in the mean, in some texts.

        Args:
            texts: at least one that is not empty.
        """
        documents = [Document(id=str(number), text=text) for number, text in enumerate(texts)]
        return measure(self.backbone, pack(documents, self.backbone.tokenizer, self.context)).perplexity

    @property
    def context(self) -> int:
        """Tokens of a block, as it was adapted."""
        return int(self.manifest.preprocess["context"])

    def predict(self, *_: object, **__: object) -> NoReturn:
        """Refuse: there are no labels.

        Raises:
            SettingError: always.
        """
        raise SettingError(
            f"{self.folder} writes text, and has no labels to predict.",
            expected="a model that was fitted on labelled items.",
            mend='headstart generate ARTIFACT "PROMPT", or model.generate("PROMPT").',
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Save a copy of the model's folder: the files that headstart.json lists.

        Args:
            path: where; nothing is there, or an empty folder.
            overwrite: whether a saved model that is there is replaced.

        Returns:
            The path.

        Raises:
            ArtifactError: if something else is there, a file of the model is a link or was changed, or the disk is full.
        """
        target = Path(path)
        copy_model(self.folder, self.manifest, target, overwrite=overwrite)
        return target

    def moved_to(self, folder: Path) -> LanguageModel:
        """The same model, its folder somewhere else."""
        return replace(self, folder=folder)


def headline(content: dict[str, Any]) -> str:
    """What a fit came to, in a sentence.

    Args:
        content: of report.json.
    """
    summary = content["summary"]
    test = summary["test"]
    low, high = test["perplexity_ci95"]
    before = test["unadapted_perplexity"]
    tokens = summary["counts"]["test_tokens"]
    told = f"Perplexity {test['perplexity']:.1f} on {tokens:,} test tokens (95 % interval {low:.1f}–{high:.1f})"
    bits = f"{test['bits_per_byte']:.2f} bits a byte, unadapted {test['unadapted_bits_per_byte']:.2f}"
    return f"{told}; unadapted {before:.1f}. {bits}."
