"""Run a headstart command in this process, then say what it loaded and how much memory it took at most.

Usage: python benchmarks/watched.py OUT.json COMMAND...      as in: watched.py out.json predict flowers.hs new.jpg
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

TRAINING_PACKAGES = ("torch", "torchvision", "timm", "sklearn", "onnxscript", "transformers")


def peak_bytes() -> int:
    """The most memory this process had at any time."""
    # ru_maxrss of a new process begins with that of whoever started it; the kernel's own mark of this one does not.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(out: Path, words: list[str]) -> None:
    from headstart.cli.main import main as run

    sys.argv = ["headstart", *words]
    code: object = 0
    try:
        run()
    except SystemExit as ended:
        code = ended.code
    told = {
        "exit": code,
        "training_packages": [name for name in TRAINING_PACKAGES if name in sys.modules],
        "num_modules": len(sys.modules),
        "peak_bytes": peak_bytes(),
        "started_processes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0,
    }
    out.write_text(json.dumps(told), encoding="utf-8")
    sys.exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
