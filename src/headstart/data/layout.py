"""Folders of items: a folder per class, with or without train/valid/test above, and Food-101's list files.

DATA/CLASS/item.jpg: a folder per class; folders inside a class count as that class's items.
DATA/train/CLASS/item.jpg, DATA/test/CLASS/item.jpg: the same below the sides of an official split.
DATA/images/CLASS/ID.jpg, DATA/meta/train.txt, DATA/meta/test.txt: Food-101.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePath

from headstart.data.folders import files_below, ignored_folders, visible_entries
from headstart.data.modality import choose_modality, modality_of_name
from headstart.data.rows import SPLIT_NAMES, Row, Rows, clean_text, count_of, name_items, name_some, path_id
from headstart.encodings import guess_encoding
from headstart.errors import DataError
from headstart.records import Finding, SplitName
from headstart.signatures import HEAD_BYTES, identify

_CLASSES_EXPECTED = "one folder per class with the items inside, as in DATA/rose/1.jpg."


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file of the data; `label` is None where it lies outside every class folder."""

    path: Path
    label: str | None = None
    split: SplitName | None = None


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """What a layout found before suffixes are looked at."""

    files: list[_File]
    classes: list[str]
    """The class folders there are, empty ones included."""
    findings: tuple[Finding, ...] = ()


def read_folder(root: Path, *, modality: str) -> Rows:
    """Read a folder of items in one of the layouts this module knows.

    Args:
        root: the folder.
        modality: auto, image, text or audio.

    Returns:
        A row per item, with a `Path` as item and its class folder's name as label.

    Raises:
        DataError: if the folder holds no items, no class folders, or items of mixed modality.
    """
    has_lists = (root / "images").is_dir() and (root / "meta" / "train.txt").is_file()
    listing = _list_food(root) if has_lists else _list_classes(root)
    where = f"the folder {str(root)!r}"
    if not listing.files:
        raise DataError(
            f"{where} is empty: no file in it or below it.",
            expected=_CLASSES_EXPECTED,
            mend="check the path, or put the labelled items there.",
        )
    chosen = choose_modality([file.path.name for file in listing.files], modality, where=where)
    items = [file for file in listing.files if modality_of_name(file.path.name) == chosen]
    if all(file.label is None for file in items):
        raise DataError(
            f"{where} holds {count_of(len(items), f'{chosen} file')} but none in a class folder.",
            expected=_CLASSES_EXPECTED,
            mend="sort the files into a folder per class, or write a table with the columns path and label and give that.",
        )
    # Files straight below the data folder are beside the classes, not unlabelled items of a split.
    items = [file for file in items if file.label is not None or file.split is not None]
    exists = [file.path.exists() for file in items]
    present = [file for file, there in zip(items, exists, strict=True) if there]
    missing = [path_id(file.path, root) for file, there in zip(items, exists, strict=True) if not there]
    ids = [path_id(file.path, root) for file in present]
    return Rows(
        rows=tuple(
            Row(id=name, item=file.path, label=file.label, split=file.split, place=name)
            for name, file in zip(ids, present, strict=True)
        ),
        modality=chosen,
        source=f"folder {root.name or root}",
        findings=(
            *listing.findings,
            *_find_foreign_names(listing.classes),
            *_find_ignored(root),
            *_tell_skipped(listing, items, chosen, root),
            *tell_missing(missing),
        ),
    )


def tell_missing(ids: list[str]) -> list[Finding]:
    """Word one finding about items that are named but do not exist; none for an empty list."""
    if not ids:
        return []
    return [
        Finding(
            kind="missing",
            severity="warning",
            items=tuple(ids),
            message=f"{count_of(len(ids), 'item')} named in the data but not there: {name_items(ids)}. Left out.",
            mend="put the files where the data names them, or remove them from the table or list.",
        )
    ]


def tell_blank(places: list[str]) -> list[Finding]:
    """Word one finding about rows without an item; none for an empty list."""
    if not places:
        return []
    return [
        Finding(
            kind="missing",
            severity="warning",
            items=tuple(places),
            message=f"{count_of(len(places), 'row')} without an item: {name_items(places)}. Left out.",
            mend="fill the cells, or remove the rows.",
        )
    ]


def class_folders_with_items(root: Path) -> list[Path]:
    """The sub-folders of `root` that hold at least one file of a known modality at any depth."""
    return [folder for folder in visible_entries(root)[0] if any(modality_of_name(file.name) for file in files_below(folder))]


def _list_classes(root: Path) -> _Listing:
    folders, loose = visible_entries(root)
    folders = [folder for folder in folders if not _is_saved_model(folder)]
    sides, others = _split_sides(folders)
    files = [_File(path=path) for path in loose]
    classes: list[str] = []
    if not sides:
        for folder in folders:
            classes.append(folder.name)
            files += [_File(path=path, label=folder.name) for path in files_below(folder)]
        return _Listing(files=files, classes=classes)
    for side in sides:
        split = SPLIT_NAMES[side.name.casefold()]
        class_folders, unlabelled = visible_entries(side)
        files += [_File(path=path, split=split) for path in unlabelled]
        for folder in class_folders:
            classes.append(folder.name)
            files += [_File(path=path, label=folder.name, split=split) for path in files_below(folder)]
    note = _skipped(
        f"{count_of(len(others), 'folder')} beside {', '.join(side.name for side in sides)} left out: "
        f"{name_some([clean_text(folder.name) for folder in others])}.",
        "nothing, unless they hold labelled items: then move them below train.",
    )
    return _Listing(files=files, classes=classes, findings=(note,) if others else ())


def _is_saved_model(folder: Path) -> bool:
    """Whether `fit --out` made the folder, or is about to: a model kept beside the classes is none of them."""
    return (folder / "headstart.json").is_file() or (folder.suffix == ".partial" and visible_entries(folder) == ([], []))


def _split_sides(folders: list[Path]) -> tuple[list[Path], list[Path]]:
    """Tell the sides of an official split from class folders that merely bear such a name.

    Sides are folders named train, valid or test with a train among them that holds folders and no items, where either
    nothing else lies beside them, or two sides have a class in common.
    """
    sides = [folder for folder in folders if folder.name.casefold() in SPLIT_NAMES]
    others = [folder for folder in folders if folder not in sides]
    classes = {side: {folder.name for folder in visible_entries(side)[0]} for side in sides}
    trains = [side for side in sides if SPLIT_NAMES[side.name.casefold()] == "train"]
    if not any(classes[side] and not _holds_items(side) for side in trains):
        return [], folders
    shared = any(classes[one] & classes[other] for one in sides for other in sides if one != other)
    return (sides, others) if shared or not others else ([], folders)


def _holds_items(folder: Path) -> bool:
    return any(modality_of_name(path.name) in ("image", "audio") for path in visible_entries(folder)[1])


def _list_food(root: Path) -> _Listing:
    """Read Food-101's lists: each line of meta/train.txt and meta/test.txt is CLASS/ID, without the suffix."""
    images = root / "images"
    by_stem = {path.relative_to(images).with_suffix("").as_posix(): path for path in files_below(images)}
    train, test = (dict.fromkeys(_lines(root / "meta" / name)) for name in ("train.txt", "test.txt"))
    both = [name for name in train if name in test]
    split_of: dict[str, SplitName] = {name: "test" if name in test else "train" for name in (*train, *test)}
    if not split_of:
        raise DataError(
            f"the lists in {str(root / 'meta')!r} name no item.",
            expected="a line CLASS/ID for each image in meta/train.txt and meta/test.txt.",
            mend="write the lists anew, or remove the folder meta and give the folder images.",
        )
    files = [
        _File(path=by_stem.get(name, images / f"{name}.jpg"), label=PurePath(name).parts[0], split=split)
        for name, split in split_of.items()
    ]
    findings = []
    if both:
        findings.append(
            Finding(
                kind="leak",
                severity="warning",
                items=tuple(path_id(by_stem.get(name, images / f"{name}.jpg"), root) for name in both),
                message=f"{count_of(len(both), 'item')} in train.txt and in test.txt: {name_items(both)}. Used in test only.",
                mend="remove each from one of the two lists.",
            )
        )
    unlisted = len(by_stem.keys() - split_of.keys())
    if unlisted:
        text = f"{count_of(unlisted, 'file')} below images left out: no list names them."
        findings.append(_skipped(text, "nothing, unless they should be used: then add them to meta/train.txt."))
    classes = [folder.name for folder in visible_entries(images)[0]]
    return _Listing(files=files, classes=classes, findings=tuple(findings))


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _find_foreign_names(classes: list[str]) -> list[Finding]:
    """Report class folders whose names are not UTF-8, and their likely encoding."""
    foreign = sorted({name for name in classes if any("\udc80" <= character <= "\udcff" for character in name)})
    if not foreign:
        return []
    guess = guess_encoding(b"\n".join(os.fsencode(name) for name in foreign))
    likely = f"; likely {guess}" if guess else ""
    names = tuple(clean_text(name) for name in foreign)
    return [
        Finding(
            kind="encoding",
            severity="warning",
            items=names,
            message=f"{count_of(len(names), 'class')} with a name that is not UTF-8 (escaped{likely}): {name_some(names)}.",
            mend=f"rename the folders, as by convmv -f {guess or 'ENCODING'} -t UTF-8 --notest -r DATA.",
        )
    ]


def _find_ignored(root: Path) -> list[Finding]:
    """Report the folders of systems and network drives that lie where class folders do."""
    names = [clean_text(name) for name in ignored_folders(root)]
    if not names:
        return []
    text = f"{count_of(len(names), 'folder')} of the system left out: {name_some(names)}."
    return [_skipped(text, "nothing, unless they hold items: then rename or move them.", tuple(names))]


def _begins_like(path: Path) -> str:
    """What a file without a suffix begins like; '' where that is not known."""
    if path.suffix or not path.is_file():
        return ""
    try:
        with path.open("rb") as stream:
            found = identify(stream.read(HEAD_BYTES))
    except OSError:
        return ""
    return "" if found is None else f" ({found.name} by its content)"


def _tell_skipped(listing: _Listing, items: list[_File], modality: str, root: Path) -> list[Finding]:
    findings = []
    used = {file.path for file in items}
    skipped = [file.path for file in listing.files if file.path not in used]
    if skipped:
        # Those first that may have been meant as items: without a suffix, but of a known content.
        described = sorted((path_id(path, root), _begins_like(path)) for path in skipped)
        described.sort(key=lambda pair: not pair[1])
        text = f"{count_of(len(skipped), 'file')} left out: no {modality} file by its name, or outside every class folder: "
        text += f"{name_some([name + content for name, content in described], 3)}."
        names = tuple(name for name, _ in described)
        findings.append(
            _skipped(text, "nothing, unless they should be items: then convert, move or name them by a suffix.", names)
        )
    filled = {file.label for file in items}
    empty = sorted({clean_text(name) for name in listing.classes if name not in filled})
    if empty:
        findings.append(
            Finding(
                kind="empty",
                severity="warning",
                items=(),
                message=f"{count_of(len(empty), 'class')} without any {modality} file: {name_some(empty)}. Left out.",
                mend="put items into these folders, or remove them.",
            )
        )
    return findings


def _skipped(message: str, mend: str, items: tuple[str, ...] = ()) -> Finding:
    return Finding(kind="skipped", severity="info", items=items, message=message, mend=mend)
