"""Files of features, written row group by row group: Parquet, or NumPy's .npz, which needs no further package."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from headstart.errors import MissingPackageError, SettingError

if TYPE_CHECKING:
    import pyarrow

Rows = Iterable[tuple[list[str], list[str | None], np.ndarray]]
"""Ids, labels, and (n, D) float32 vectors of a few items at a time."""
Writer = Callable[[Path, Rows, int], None]
"""Writes rows whose vectors have so many columns to a file."""


def writer_for(path: Path) -> Writer:
    """Choose how to write features by a file's name.

    Args:
        path: ends in .parquet, .pq or .npz.

    Returns:
        A function that writes rows to a file.

    Raises:
        SettingError: if it ends otherwise.
        MissingPackageError: if it is a Parquet file, and pyarrow is not installed.
    """
    match path.suffix.casefold():
        case ".parquet" | ".pq":
            try:
                import pyarrow.parquet  # noqa: F401 - asked for before any work
            except ImportError as error:
                raise MissingPackageError("pyarrow", purpose="writing Parquet files (.npz files need no package)") from error
            return write_parquet
        case ".npz":
            return write_npz
    raise SettingError(
        f"{path} is not named as a Parquet or NumPy file.",
        expected="a path that ends in .parquet or .npz.",
        mend=f"--out {path.with_suffix('.parquet')}",
    )


def write_parquet(path: Path, rows: Rows, width: int) -> None:
    """Write the columns id, label (null where there is none), and vector."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema(
        [("id", pyarrow.string()), ("label", pyarrow.string()), ("vector", pyarrow.list_(pyarrow.float32(), width))]
    )
    with ParquetWriter(path, schema) as writer:
        for ids, labels, vectors in rows:
            lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), width)
            columns: list[pyarrow.Array] = [pyarrow.array(ids), pyarrow.array(labels, pyarrow.string()), lists]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))


def write_npz(path: Path, rows: Rows, width: int) -> None:
    """Write the arrays ids (N,), labels (N,), '' where there is none, and vectors (N, D) float32."""
    all_ids: list[str] = []
    all_labels: list[str] = []
    with tempfile.TemporaryFile(dir=path.parent) as vectors_file:
        for ids, labels, vectors in rows:
            all_ids += ids
            all_labels += [label or "" for label in labels]
            vectors_file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
        vectors_file.seek(0)
        _write_archive(path, {"ids": all_ids, "labels": all_labels}, vectors_file, width)


def _write_archive(path: Path, names: dict[str, list[str]], vectors_file: IO[bytes], width: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for array, values in names.items():
            with archive.open(f"{array}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.array(values, dtype=np.str_), allow_pickle=False)
        with archive.open("vectors.npy", "w", force_zip64=True) as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(names["ids"]), width)}
            np.lib.format.write_array_header_2_0(stream, header)
            shutil.copyfileobj(vectors_file, stream)
