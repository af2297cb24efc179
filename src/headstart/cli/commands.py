"""The commands: each reads its words, calls one door of the library, and shows what came back.

Whatever is heavy is imported inside the command that needs it, so that `headstart predict` starts quickly and without torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.cache import cache_app
from headstart.cli.options import (
    IN_DATA,
    IN_MODEL,
    IN_OUTPUT,
    IN_TRAINING,
    ArtifactArgument,
    BackboneOption,
    DataArgument,
    DataOptions,
    GeometryOption,
    ImageSizeOption,
    JsonOption,
    ModalityOption,
    OfflineOption,
    OverwriteOption,
    QuietOption,
    TestOption,
    go_offline,
    pairs_of,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Transfer learning with evidence: labelled items in, an adapted model out, predictions anywhere without torch.",
    epilog="Exit status: 0 done; 2 the input is at fault, or some of the items could not be used; 130 interrupted; 1 a bug.",
)
app.add_typer(cache_app, name="cache")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headstart {version('headstart')}")
        raise typer.Exit


VersionOption = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version.")]


@app.callback()
def common(show_version: VersionOption = False) -> None:
    """Options of the program itself."""


@app.command()
def fit(  # noqa: PLR0913 - one parameter for each option
    data: DataArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the model; nothing may be there, but with --overwrite a model.",
            rich_help_panel=IN_OUTPUT,
        ),
    ],
    modality: ModalityOption = "auto",
    task: Annotated[
        str,
        typer.Option(help="auto, multiclass, multilabel, regression; or generation, for a corpus.", rich_help_panel=IN_DATA),
    ] = "auto",
    backbone: BackboneOption = "auto",
    strategy: Annotated[
        str,
        typer.Option(help="auto, extract, last:K, full, lora or contrastive (few labels of texts).", rich_help_panel=IN_MODEL),
    ] = "auto",
    test: TestOption = None,
    label_column: DataOptions.label_column = None,
    item_column: DataOptions.item_column = None,
    group_column: DataOptions.group_column = None,
    split_column: DataOptions.split_column = None,
    merge_labels: DataOptions.merge_labels = None,
    label_columns: DataOptions.label_columns = None,
    label_separator: DataOptions.label_separator = None,
    label_names: DataOptions.label_names = None,
    item_root: DataOptions.item_root = None,
    encoding: DataOptions.encoding = None,
    balance: Annotated[
        str, typer.Option(help="auto, weights or none: whether classes weigh alike.", rich_help_panel=IN_MODEL)
    ] = "auto",
    head: Annotated[
        str, typer.Option(help="auto, linear (solved exactly), or mlp (hidden layers, trained).", rich_help_panel=IN_MODEL)
    ] = "auto",
    classical: Annotated[
        str, typer.Option(help="Texts: auto, or none to leave words and pieces of words out.", rich_help_panel=IN_MODEL)
    ] = "auto",
    geometry: GeometryOption = "auto",
    precision: Annotated[
        str, typer.Option(help="Of the frozen network: auto, float32 or int8.", rich_help_panel=IN_MODEL)
    ] = "auto",
    image_size: ImageSizeOption = None,
    budget: Annotated[
        str | None, typer.Option(help="Time to spend on doing better: 90s, 10m, 1h.", rich_help_panel=IN_TRAINING)
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="In place of the rule's.", rich_help_panel=IN_TRAINING)] = None,
    batch_size: Annotated[int | None, typer.Option(help="In place of the rule's.", rich_help_panel=IN_TRAINING)] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="The head's highest, in place of the rule's; the blocks' stays in proportion to it.",
            rich_help_panel=IN_TRAINING,
        ),
    ] = None,
    find_learning_rate: Annotated[
        bool,
        typer.Option(
            "--find-learning-rate",
            help="By range tests, in place of the rule; tells their spread.",
            rich_help_panel=IN_TRAINING,
        ),
    ] = False,
    context: Annotated[
        int | None,
        typer.Option(help="Language models: tokens of a block, in place of the rule's.", rich_help_panel=IN_TRAINING),
    ] = None,
    overwrite: OverwriteOption = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of an interrupted fit.", rich_help_panel=IN_OUTPUT)
    ] = False,
    seed: Annotated[int, typer.Option(help="Of every random step.", rich_help_panel=IN_OUTPUT)] = 0,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Adapt a pretrained network to DATA, evaluate it, save it.

    Example: `headstart fit photos/ --out photos.hs`
    """
    go_offline(offline)
    from headstart.api.fit import fit as fit_data
    from headstart.cli.generate import show_any_fit
    from headstart.cli.show import Narrator, Shown

    with Narrator(quiet=quiet) as narrator, _told_how_to_go_on(out):
        model = fit_data(
            data,
            out=out,
            overwrite=overwrite,
            test=test,
            progress=narrator.step,
            modality=modality,
            task=task,
            backbone=backbone,
            strategy=strategy,
            label_column=label_column,
            item_column=item_column,
            group_column=group_column,
            split_column=split_column,
            merge_labels=pairs_of(merge_labels),
            label_columns=label_columns,
            label_separator=label_separator,
            label_names=label_names,
            item_root=item_root,
            encoding=encoding,
            balance=balance,
            head=head,
            classical=classical,
            geometry=geometry,
            precision=precision,
            image_size=image_size,
            budget=budget,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            find_learning_rate=find_learning_rate or None,
            context=context,
            resume=resume,
            seed=seed,
        )
    show_any_fit(model, out, Shown(as_json=as_json, quiet=quiet))


@app.command()
def generate(  # noqa: PLR0913 - one parameter for each option
    artifact: ArtifactArgument,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What comes before; the model goes on from it.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to write at most.")] = 80,
    temperature: Annotated[float, typer.Option(help="Higher is wilder; 0 always takes the likeliest token.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that together have this probability.")] = 0.95,
    top_k: Annotated[int, typer.Option(help="Draw from so many of the likeliest tokens; 0 is no limit.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed writes the same text.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write text with a language model that was fitted with --task generate."""
    from headstart.cli.generate import generate_text

    numbers = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    generate_text(artifact, prompt, numbers, as_json=as_json)


@app.command()
def predict(
    artifact: ArtifactArgument,
    items: Annotated[
        list[str],
        typer.Argument(metavar="ITEM...", help="Files, folders, texts, tables, or - for one item a line on stdin."),
    ],
    item_column: Annotated[str | None, typer.Option(help="Of tables: the column of the items.")] = None,
    item_root: DataOptions.item_root = None,
    encoding: DataOptions.encoding = None,
    output_format: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    as_json: JsonOption = False,
) -> None:
    """Label new items. Exit status 2 where some cannot be read; the others are answered."""
    from headstart.cli.predict import TableWords, predict_items

    table = TableWords(item_column=item_column, item_root=item_root, encoding=encoding)
    raise typer.Exit(predict_items(artifact, items, "json" if as_json else output_format, table))


@app.command()
def evaluate(  # noqa: PLR0913 - one parameter for each option
    artifact: ArtifactArgument,
    data: DataArgument,
    label_column: DataOptions.label_column = None,
    item_column: DataOptions.item_column = None,
    split_column: DataOptions.split_column = None,
    label_columns: DataOptions.label_columns = None,
    label_separator: DataOptions.label_separator = None,
    label_names: DataOptions.label_names = None,
    item_root: DataOptions.item_root = None,
    encoding: DataOptions.encoding = None,
    as_json: JsonOption = False,
) -> None:
    """Score a saved model on labelled data; of data with a test split, only that. Exit status 2 where items cannot be read."""
    from headstart.api.score import evaluate as evaluate_model
    from headstart.cli.show import show_evaluation

    evaluation = evaluate_model(
        artifact,
        data,
        label_column=label_column,
        item_column=item_column,
        split_column=split_column,
        label_columns=label_columns,
        label_separator=label_separator,
        label_names=label_names,
        item_root=item_root,
        encoding=encoding,
    )
    raise typer.Exit(show_evaluation(evaluation, as_json=as_json))


@app.command()
def check(  # noqa: PLR0913 - one parameter for each option
    data: DataArgument,
    modality: ModalityOption = "auto",
    backbone: BackboneOption = "auto",
    test: TestOption = None,
    label_column: DataOptions.label_column = None,
    item_column: DataOptions.item_column = None,
    group_column: DataOptions.group_column = None,
    split_column: DataOptions.split_column = None,
    merge_labels: DataOptions.merge_labels = None,
    label_columns: DataOptions.label_columns = None,
    label_separator: DataOptions.label_separator = None,
    label_names: DataOptions.label_names = None,
    item_root: DataOptions.item_root = None,
    encoding: DataOptions.encoding = None,
    task: Annotated[str, typer.Option(help="auto, multiclass, multilabel or regression.")] = "auto",
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what is wrong with DATA, before any training. Exit status 2 for an error, or where items cannot be read."""
    go_offline(offline)
    from headstart.api.use import check as check_data
    from headstart.cli.show import Narrator, show_findings

    with Narrator(quiet=quiet) as narrator:
        findings = check_data(
            data,
            backbone=backbone,
            test=test,
            progress=narrator.named("check"),
            modality=modality,
            label_column=label_column,
            item_column=item_column,
            group_column=group_column,
            split_column=split_column,
            merge_labels=pairs_of(merge_labels),
            task=task,
            label_columns=label_columns,
            label_separator=label_separator,
            label_names=label_names,
            item_root=item_root,
            encoding=encoding,
        )
    raise typer.Exit(show_findings(findings, as_json=as_json))


@app.command()
def embed(  # noqa: PLR0913 - one parameter for each option
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .parquet or .npz file to write: ids, labels, vectors.")],
    backbone: BackboneOption = "auto",
    block: Annotated[str, typer.Option(help="A block's name, last, or multi for all together.")] = "last",
    geometry: GeometryOption = "auto",
    image_size: ImageSizeOption = None,
    label_column: DataOptions.label_column = None,
    item_column: DataOptions.item_column = None,
    label_columns: DataOptions.label_columns = None,
    label_separator: DataOptions.label_separator = None,
    label_names: DataOptions.label_names = None,
    item_root: DataOptions.item_root = None,
    encoding: DataOptions.encoding = None,
    overwrite: OverwriteOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write features at any block, for other tools. Exit status 2 where some items cannot be read; the others are written."""
    go_offline(offline)
    from headstart.api.use import embed_to_file
    from headstart.cli.show import Narrator, Shown, show_embedding

    with Narrator(quiet=quiet) as narrator:
        told = embed_to_file(
            data,
            out,
            backbone=backbone,
            block=block,
            geometry=geometry,
            image_size=image_size,
            progress=narrator.named("embed"),
            label_column=label_column,
            item_column=item_column,
            label_columns=label_columns,
            label_separator=label_separator,
            label_names=label_names,
            item_root=item_root,
            encoding=encoding,
            overwrite=overwrite,
        )
    raise typer.Exit(show_embedding(told, out, Shown(as_json=as_json, quiet=quiet)))


@app.command()
def report(artifact: ArtifactArgument) -> None:
    """Write report.html again from the evidence saved in ARTIFACT."""
    from headstart.api.use import rewrite_report
    from headstart.cli.show import print_line

    print_line(str(rewrite_report(artifact)))


@app.command()
def export(
    artifact: ArtifactArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The ONNX file to write.")],
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write ARTIFACT as one ONNX file for other programs, compared with the model."""
    from headstart.api.export import export as export_model
    from headstart.cli.show import show_export

    show_export(export_model(artifact, out, overwrite=overwrite), out, as_json=as_json)


@app.command()
def backbones(as_json: JsonOption = False) -> None:
    """List what is bundled, what is compiled, and what can be named."""
    from headstart.cli.backbones import show_backbones

    show_backbones(as_json=as_json)


@contextmanager
def _told_how_to_go_on(out: Path) -> Iterator[None]:
    """Say that a fit that is interrupted while it tunes can be gone on with."""
    try:
        yield
    except KeyboardInterrupt:
        from headstart.api.workplace import has_checkpoints, partial

        if has_checkpoints(partial(out)):
            typer.echo(f"\n{partial(out)} keeps the epochs done: the same command with --resume goes on from there.", err=True)
        raise
