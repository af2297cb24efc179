"""An adapted model in use: the saved preprocess and the saved network, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final, overload

import numpy as np
import onnxruntime

from headstart import runtime
from headstart.errors import DataError
from headstart.heads.terms import TermsHead
from headstart.inference import ordered_map
from headstart.model.frames import is_frame, is_series, named_cells, predictions_frame
from headstart.model.items import expand, unreadable_error
from headstart.model.manifest import Manifest
from headstart.model.place import copy_model
from headstart.model.terms import TERMS_INPUT
from headstart.preprocess.batches import in_batches
from headstart.preprocess.fusion import named_arrays
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.recipe import Arrays, Preprocess
from headstart.records import Prediction

BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Report:
    """The evidence a model was saved with."""

    content: dict[str, Any]
    """report.json."""

    @property
    def warnings(self) -> list[str]:
        """What a user must hear."""
        return list(self.content["summary"]["warnings"])

    def __str__(self) -> str:
        """The outcome in one line, and a line for each warning."""
        summary = self.content["summary"]
        scores = summary["test"]
        name = next(iter(scores))
        low, high = scores[f"{name}_ci95"]
        against = f", majority class {summary['majority_accuracy']:.3f}" if summary.get("majority_accuracy") is not None else ""
        outcome = (
            f"{name} {scores[name]:.3f} [{low:.3f}, {high:.3f}], strategy {summary['strategy']}, "
            f"backbone {summary['backbone']}{against}, {summary['seconds']['total']:.1f} s"
        )
        return "\n".join([outcome, *(f"  ! {warning}" for warning in self.warnings)])


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the network said of the readable items."""

    items: tuple[str, ...]
    values: np.ndarray
    """(N, K) float32: probabilities, or (N, 1) values."""
    unreadable: dict[str, str]
    """Reason for each item that could not be read."""


@final
class Model:
    """A saved model, opened: give it items, it gives predictions."""

    def __init__(
        self,
        *,
        folder: Path,
        manifest: Manifest,
        preprocess: Preprocess,
        session: onnxruntime.InferenceSession,
        report: dict[str, Any],
        terms: TermsHead | None = None,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.preprocess = preprocess
        self.report = Report(content=report)
        self._session = session
        self.terms = terms

    def __repr__(self) -> str:
        """What it is and where."""
        return f"Model({self.manifest.backbone['name']}, {len(self.labels)} labels, {str(self.folder)!r})"

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the network's outputs."""
        return self.manifest.labels

    @overload
    def predict(
        self,
        items: Any,  # noqa: ANN401 - any kind of item
        *,
        unreadable: Literal["raise", "skip"] = "raise",
        as_frame: Literal[False] = False,
    ) -> list[Prediction]: ...

    @overload
    def predict(self, items: Any, *, unreadable: Literal["raise", "skip"] = "raise", as_frame: bool) -> Any: ...  # noqa: ANN401

    def predict(self, items: Any, *, unreadable: Literal["raise", "skip"] = "raise", as_frame: bool = False) -> Any:
        """Label new items.

        Args:
            items: one item or several: paths, folders (all items below them), bytes; for images arrays (H, W, 3), of clips
                (F, H, W, 3), and PIL images, too. For texts a string is the text itself, and a `Path` a file or folder. Or a
                series, or a frame with a column of items, of pandas or polars, or a numpy array of texts: a row is an item.
            unreadable: what to do with items that cannot be read: 'raise' names them all, 'skip' leaves them out.
            as_frame: whether to give a frame in place of a list: of polars for items in one of its frames or series, else of
                pandas, with the index of the items kept.

        Returns:
            A prediction for each item, in their order; or a frame with a row for each.

        Raises:
            DataError: if there is no item, or some cannot be read.
        """
        named = self._name(items)
        answers = self.answers_to(named)
        if answers.unreadable and unreadable == "raise":
            raise unreadable_error(answers.unreadable)
        predictions = self.interpret(answers)
        if not as_frame:
            return predictions
        rows = [row for row, (name, _) in enumerate(named) if name not in answers.unreadable]
        return predictions_frame(predictions, items, rows, self.manifest.task)

    def interpret(self, answers: Answers) -> list[Prediction]:
        """Put answers into words: labels and probabilities, or values."""
        return [self._prediction(item, row) for item, row in zip(answers.items, answers.values, strict=True)]

    def answers(self, items: Any) -> Answers:  # noqa: ANN401 - any kind of item
        """Run the network on items.

        Args:
            items: as for `predict`.

        Returns:
            What the network gave for the readable ones, and why the others are not.

        Raises:
            DataError: if there is no item.
        """
        return self.answers_to(self._name(items))

    def _name(self, items: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - any kind of item
        if is_frame(items) or is_series(items):
            return named_cells(items, self.manifest.modality)
        return expand(items, self.manifest.modality)

    def answers_to(self, named: Sequence[tuple[str, Any]]) -> Answers:
        """Run the network on items that have names.

        Args:
            named: (name, item) pairs.

        Returns:
            As `answers`.

        Raises:
            DataError: if there is no item.
        """
        if not named:
            raise DataError(
                "there is no item to predict.",
                expected=f"one or more {self.manifest.modality} items, or a folder of them.",
                mend="check the path.",
            )
        rows: list[np.ndarray] = []
        names: list[str] = []
        failed: dict[str, str] = {}
        for done, values, failures in ordered_map(self._run, self._in_batches(named), num_workers=runtime.num_cores()):
            names += done
            rows.append(values)
            failed |= failures
        return Answers(items=tuple(names), values=np.concatenate(rows), unreadable=failed)

    def moved_to(self, folder: Path) -> Model:
        """The same model, its folder being somewhere else now."""
        report = self.report.content
        return Model(
            folder=folder,
            manifest=self.manifest,
            preprocess=self.preprocess,
            session=self._session,
            report=report,
            terms=self.terms,
        )

    def run(self, batch: Arrays, items: Sequence[Any]) -> np.ndarray:
        """Run the network on a collated batch of items, and for texts on what their terms say: to (B, K) float32.

        Args:
            batch: B items, prepared.
            items: the same as they are.
        """
        return run_network(self._session, self.preprocess, self.terms, batch, items)

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

    def _in_batches(self, named: Sequence[tuple[str, Any]]) -> Iterator[list[tuple[str, Any]]]:
        return in_batches(named, BATCH_SIZE, lambda pair: self.preprocess.size(pair[1]))

    def _run(self, few: list[tuple[str, Any]]) -> tuple[list[str], np.ndarray, dict[str, str]]:
        names, prepared, failures, items = [], [], {}, []
        for name, item in few:
            try:
                loaded = item if self.terms is None else self.preprocess.load(item, name=name)
                prepared.append(self.preprocess.prepare(loaded, name=name))
                items.append(loaded)
                names.append(name)
            except UnreadableItemError as error:
                failures[name] = error.reason
        if not prepared:
            return [], np.empty((0, self.manifest.num_outputs), np.float32), failures
        return names, self.run(self.preprocess.collate(prepared), items), failures

    def _prediction(self, item: str, row: np.ndarray) -> Prediction:
        if self.manifest.task == "value":
            return Prediction(item=item, value=float(row[0]))
        order = np.argsort(-row, kind="stable")
        probabilities = {self.labels[i]: float(row[i]) for i in order}
        chosen = tuple(self.labels[i] for i in order if row[i] >= self.manifest.thresholds[i])
        top = int(order[0])
        return Prediction(
            item=item,
            label=self.labels[top],
            probability=float(row[top]),
            probabilities=probabilities,
            labels=chosen if self.manifest.task == "multi" else (),
        )


def run_network(
    session: onnxruntime.InferenceSession,
    preprocess: Preprocess,
    terms: TermsHead | None,
    batch: Arrays,
    items: Sequence[Any],
) -> np.ndarray:
    """Run a saved model's network: what its preprocess and its terms make of items, to its answer.

    Args:
        session: of model.onnx.
        preprocess: that prepared the items.
        terms: where they are part.
        batch: B items, collated.
        items: the same as they are; looked at only where terms are part.

    Returns:
        (B, K) float32.
    """
    given = named_arrays(preprocess.input_name, preprocess, batch)
    if terms is not None:
        given[TERMS_INPUT] = terms.scores([str(preprocess.load(item)) for item in items])
    return session.run(None, given)[0]
