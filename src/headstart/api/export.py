"""A saved model as one ONNX file, for programs that know nothing of this library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstart.artifact.store import ANSWER_TOLERANCE, NETWORK, SELF_TEST, golden_items, load
from headstart.errors import ArtifactError, SettingError
from headstart.model.place import check_file_replaceable
from headstart.runtime import atomic_write_bytes, require_packages

if TYPE_CHECKING:
    from headstart.artifact.portable import Portable

SUFFIX = ".onnx"


def export(artifact: str | Path, out: str | Path, *, overwrite: bool = False) -> Portable:
    """Write a saved model's network, with all that must be known to use it, as one ONNX file.

    From the prepared item to the calibrated answer; labels, preprocessing, and for texts tokenizer and vocabulary are in the
    file's metadata, by names that begin with 'headstart.'. What terms of texts say enters as two inputs: which terms a text
    has, and their values.

    Args:
        artifact: the folder of a saved model.
        out: the file, which ends in .onnx; it appears only when it is whole and answers as the model does.
        overwrite: whether a file that is there is replaced.

    Returns:
        What the file takes and gives, and how it was compared.

    Raises:
        MissingPackageError: if onnx is not installed.
        ArtifactError: if the model cannot be opened, or the file would answer otherwise.
        SettingError: if the file is named otherwise, is there already, or cannot be written.
    """
    target = Path(out)
    if target.suffix.casefold() != SUFFIX:
        raise SettingError(
            f"{target} is not named as an ONNX file.",
            expected="a path that ends in .onnx.",
            mend=f"--out {target.with_suffix(SUFFIX)}",
        )
    check_file_replaceable(target, overwrite=overwrite)
    require_packages("onnx", purpose="exporting a model")
    from headstart.artifact.portable import make_portable

    model = load(artifact)
    golden = golden_items((model.folder / SELF_TEST).read_bytes())
    made = make_portable(model, (model.folder / NETWORK).read_bytes(), golden)
    if not made.apart <= ANSWER_TOLERANCE:
        raise ArtifactError(
            f"the exported network answers otherwise than {model.folder}, by {made.apart:.1e}.",
            expected=f"the same answers to its {made.num_compared} golden items, up to {ANSWER_TOLERANCE}.",
            mend="use the versions of onnx and onnxruntime that headstart.json lists under packages.",
        )
    atomic_write_bytes(target, made.content, error=SettingError)
    return made
