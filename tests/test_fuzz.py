"""Damaged files of every format that is read: a value or an error in words, never a traceback, a hang or all of the memory."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz_cases import KINDS, MODELS, PICTURES, SOUNDS

SEED = 7
NUM_CASES = dict.fromkeys(KINDS, 25) | dict.fromkeys((*PICTURES, *SOUNDS), 40) | dict.fromkeys(MODELS, 40)
NEEDS = {"parquet": "pyarrow", "mp4": "av", "matroska": "av", "pth": "torch"}
# A process reads the cases of several kinds, so that it starts once.
BATCHES = (
    tuple(PICTURES),
    tuple(SOUNDS),
    ("mp4", "matroska", "zip", "tar"),
    ("txt", "csv", "tsv", "jsonl", "parquet"),
    MODELS,
    ("pth",),
)


@pytest.mark.parametrize("kinds", BATCHES, ids=lambda kinds: kinds[0])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited as on Linux")
def test_damaged_files_give_a_value_or_an_error_in_words(kinds, tmp_path):
    counted = {kind: NUM_CASES[kind] for kind in kinds if importlib.util.find_spec(NEEDS.get(kind, "numpy"))}
    program = str(Path(__file__).with_name("fuzz_cases.py"))
    command = [sys.executable, program, json.dumps(counted), str(SEED), "0", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HEADSTART_OFFLINE": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    wrong = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    last = ended.stdout.splitlines()[-1:] or ["no case"]
    assert ended.returncode == 0, f"ended with {ended.returncode} at {last[0]}: {ended.stderr[-2000:]}"
    assert wrong == []
    assert ended.stdout.splitlines().count("done") == len(counted)
