"""`headstart embed` that keeps a log of what it has done, line by line, for whoever kills it: used by memory.py.

The log gets "computed N" when the network has given the features of N items, and "done N" when the command would show N items
as done. A line is with the system once it is written, whatever becomes of this process.

Usage: python benchmarks/embed_telling.py LOG DATA OUT.parquet
"""

from __future__ import annotations

import os
import sys

from headstart.api.use import embed_to_file
from headstart.features.prefix import OnnxPrefix


def main(log: str, data: str, out: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    run = OnnxPrefix.__call__

    def run_and_tell(prefix, batch):
        result = run(prefix, batch)
        os.write(handle, f"computed {len(batch)}\n".encode())
        return result

    OnnxPrefix.__call__ = run_and_tell
    embed_to_file(data, out, progress=lambda done, _: os.write(handle, f"done {done}\n".encode()))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
