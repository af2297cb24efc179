"""The list of backbones."""

from __future__ import annotations

from headstart.backbones.bundled import BUNDLED, DEFAULTS, PREFIXES
from headstart.backbones.info import FUSED_BY
from headstart.cli.show import print_json, print_line
from headstart.features.compile import compiled

BY_NAME = (
    ("timm:NAME", "image", "weights from the hub"),
    ("hf:NAME", "text, audio", "an encoder of transformers, weights from the hub"),
    ("vectors:PATH", "text", "word vectors of your own: word2vec, GloVe, fastText's .vec"),
    ("file:PATH", "image, text, audio", "a checkpoint of timm or transformers"),
    ("random:ARCH", "image, text, audio", "untrained"),
    ("artifact:PATH", "image, text, audio", "the backbone of a model that `fit` saved, as it was tuned there"),
    ("A+B", "of one kind", "several together: their features side by side, where that is better than the best alone"),
)
"""What can be named beside the bundled ones, for which items, and what it is."""


def show_backbones(*, as_json: bool) -> None:
    """List backbones, each with the items it takes."""
    ready = compiled()
    defaults = {name for default in DEFAULTS.values() for name in default.split(FUSED_BY)}
    bundled = [
        {"name": name, "modality": entry.modality, "default": name in defaults, "compiled": name in ready}
        for name, entry in BUNDLED.items()
    ]
    if as_json:
        prefixes = dict.fromkeys(prefix for several in PREFIXES.values() for prefix in several)
        by_name = [f"{prefix}…" for prefix in prefixes]
        print_json({"bundled": bundled, "compiled": sorted(ready), "by_name": by_name})
        return
    for entry in bundled:
        marks = [f", {word}" for word in ("default", "compiled") if entry[word]]
        print_line(f"{entry['name']:<22} {entry['modality']}  bundled{''.join(marks)}")
    for name in sorted(ready.keys() - BUNDLED.keys()):
        print_line(f"{name:<22} {ready[name]}  compiled")
    print_line("by name:")
    for form, modality, told in BY_NAME:
        print_line(f"  {form:<20} {modality:<18}  {told}")
