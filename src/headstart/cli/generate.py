"""Writing from the command line, and what `fit` prints of a language model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headstart.artifact.store import read_manifest
from headstart.cli.output import printable
from headstart.cli.show import Shown, print_json, print_line, show_fit
from headstart.errors import ArtifactError
from headstart.language.draws import sampling_of

if TYPE_CHECKING:
    from headstart.language.model import LanguageModel
    from headstart.model.model import Model


def generate_text(artifact: Path, prompt: str, numbers: dict[str, Any], *, as_json: bool) -> None:
    """Go on from a prompt, and print piece by piece as it is written.

    Args:
        artifact: a saved language model's folder.
        prompt: what comes before.
        numbers: of the sampling.
        as_json: one object at the end instead.

    Raises:
        HeadstartError: if the model does not write or was changed, or a number cannot work.
    """
    # Said before torch is loaded: it takes seconds.
    manifest = read_manifest(artifact)
    if manifest.task != "generate":
        raise ArtifactError(
            f"{artifact} labels {manifest.modality} items, and writes nothing.",
            expected="a model fitted with --task generate.",
            mend=f"headstart predict {shlex.quote(str(artifact))} ITEM",
        )
    sampling_of(numbers)
    from headstart.api.opening import load

    model = cast("LanguageModel", load(artifact))
    if as_json:
        text = model.generate(prompt, **numbers)
        print_json({"artifact": str(artifact), "prompt": prompt, "text": text, **numbers})
        return
    shown = printable if sys.stdout.isatty() else str
    sys.stdout.write(shown(prompt))
    for piece in model.stream(prompt, **numbers):
        sys.stdout.write(shown(piece))
        sys.stdout.flush()
    sys.stdout.write("\n")


def show_any_fit(model: Model | LanguageModel, out: Path, shown: Shown) -> None:
    """Say how a fit ended.

    Args:
        model: as fitted.
        out: its folder.
        shown: how much, and as what.
    """
    if model.manifest.task == "generate":
        show_language_fit(cast("LanguageModel", model), out, shown)
    else:
        show_fit(cast("Model", model), out, shown)


def show_language_fit(model: LanguageModel, out: Path, shown: Shown) -> None:
    """Say how a language model's fit ended.

    Args:
        model: as fitted.
        out: its folder.
        shown: how much, and as what.
    """
    content = model.report.content
    summary = content["summary"]
    if shown.as_json:
        print_json(summary)
        return
    if shown.quiet:
        return
    seconds = summary["seconds"]
    print_line(str(model.report))
    for warning in summary["warnings"]:
        print_line(f"  ! {warning}")
    steps = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "total")
    print_line(f"  {seconds['total']:.1f} s ({steps}); {summary['counts']['train_tokens']:,} tokens to learn from")
    print_line(f"  backbone {summary['backbone']}, strategy {summary['strategy']}")
    for attempt in content["tuning"]["attempts"]:
        spent = f" ({len(attempt['history'])} epochs, {attempt['seconds']:.1f} s)" if attempt["history"] else ""
        print_line(f"  tried   {attempt['strategy']}: {attempt['told']}{spent}")
        if attempt["states"]:
            print_line(f"          {attempt['states']}")
    print_line(f"  report  {out / 'report.html'}")
    print_line(f'  write   headstart generate {shlex.quote(str(out))} "PROMPT"')
