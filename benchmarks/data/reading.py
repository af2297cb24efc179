#!/usr/bin/env python3
"""Prepare the language model's texts: much prose to learn English from, and a few verses to be adapted to.

Source: the Debian packages bible-kjv, bible-kjv-text (the King James Bible), dict-jargon (the Jargon File) and fortunes.
They are downloaded and unpacked, not installed. The songs and poems of `fortunes` are the small text, one a row; all else is
the large one.

Usage: reading.py WORK LARGE.txt SMALL.jsonl
"""

import gzip
import json
import subprocess
import sys
from pathlib import Path

PACKAGES = ("bible-kjv", "bible-kjv-text", "dict-jargon", "fortunes")
SMALL = "songs-poems"


def main(work: Path, large: Path, small: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    root = work / "root"
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=work, check=True, stdout=subprocess.DEVNULL)
    for package in sorted(work.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    bible = [root / "usr/bin/bible", "-p", f"{root / 'usr/lib'}/", "-f", "gen1:1-rev22:21"]
    verses = subprocess.run(bible, check=True, capture_output=True, text=True).stdout
    jargon = gzip.decompress((root / "usr/share/dictd/jargon.dict.dz").read_bytes()).decode("utf-8", "replace")
    fortunes = {
        path.name: read_fortunes(path) for path in sorted((root / "usr/share/games/fortunes").iterdir()) if not path.suffix
    }
    others = [text for name, texts in fortunes.items() if name != SMALL for text in texts]
    large.write_text("\n\n".join([jargon, *others, verses]), encoding="utf-8")
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in fortunes[SMALL]]
    small.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(len(large.read_bytes()), "bytes of prose,", len(small.read_bytes()), "bytes of verse")


def read_fortunes(path: Path) -> list[str]:
    return [text.strip() for text in path.read_text(encoding="utf-8", errors="replace").split("\n%\n") if text.strip()]


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
