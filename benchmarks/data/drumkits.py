"""Prepare the benchmark of instruments: drum samples of 14 kits in 7 kinds, one folder per kind.

Source: the Debian package `hydrogen-drumkits` (apt-get install -y hydrogen-drumkits). What a sample is, is what its kit's
drumkit.xml calls the instrument; instruments of no kind, or of two ('Crash/Ride'), are left out. A file's name begins with its
kit's, and two underscores: kits are recorded apart, so that a kit is a group.

Usage: python benchmarks/data/drumkits.py OUT
"""

from __future__ import annotations

import re
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

SOURCE = Path("/usr/share/hydrogen/data/drumkits")
KINDS = {
    "kick": r"kick|bass ?drum",
    "snare": r"snare",
    "hihat": r"hi-?\ ?hat|\bhat\b|\bo?hh\b",
    "tom": r"\btom",
    "crash": r"crash|china|splash|cymbal",
    "ride": r"\bride|paiste bell",
    "clap": r"\bclap",
}


def main(out: Path) -> None:
    if not SOURCE.is_dir():
        sys.exit(f"{SOURCE} is missing: apt-get install -y hydrogen-drumkits")
    counts = dict.fromkeys(KINDS, 0)
    kits = set()
    for kit in sorted(SOURCE.iterdir()):
        for kind, path in find_samples(kit):
            (out / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / kind / f"{kit.name}__{path.name}".replace(" ", "_"))
            counts[kind] += 1
            kits.add(kit.name)
    print(f"{sum(counts.values())} samples of {len(kits)} kits under {out}: {counts}")


def find_samples(kit: Path) -> list[tuple[str, Path]]:
    """The kind and the file of each sample of a kit, each file once."""
    found: dict[Path, str] = {}
    for instrument in ET.parse(kit / "drumkit.xml").getroot().iterfind(".//{*}instrument"):
        name = (instrument.findtext("{*}name") or "").lower()
        kinds = [kind for kind, pattern in KINDS.items() if re.search(pattern, name)]
        if len(kinds) != 1:
            continue
        for layer in instrument.iterfind(".//{*}filename"):
            path = kit / (layer.text or "")
            if path.is_file() and path.stem != "emptySample":
                found.setdefault(path, kinds[0])
    return [(kind, path) for path, kind in sorted(found.items())]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
