"""Memory and sudden death of `headstart embed`: python benchmarks/memory.py [--quick] [--items N].

First all the pictures (20,000 JPEGs of one megapixel, about 2.6 GB in the work folder), from an empty cache, with the peak of
memory; the process that compiles the network is counted in. Then, on 2,000 of them, ten times: embed, SIGKILL at a random
moment of its work, and a look into the store: every value there must be whole, and what was reported done must be there. In
the end the features must equal, bit for bit, those of a run that nobody disturbed. About ten minutes on two cores.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet

import measure
from headstart.backbones import locate
from headstart.features import compile_prefix
from headstart.features.extract import feature_store
from headstart.features.prefix import Prefix
from headstart.features.store import clear, info, store_key
from headstart.preprocess.items import content_key
from headstart.runtime import cache_root
from measure import HERE, Target, at_most, clean_environment, exactly, say
from pictures import write_pictures

NUM_ITEMS, NUM_KILLED_ITEMS, NUM_KILLS = 20_000, 2_000, 10
WIDTH, HEIGHT = 1155, 866
MAX_GIGABYTES = 1.2
SAMPLING_SECONDS = 0.05


def main() -> None:
    options = measure.read_options(__doc__, lambda parser: parser.add_argument("--items", type=int, default=NUM_ITEMS))
    num_items, num_killed = (400, 160) if options.quick else (options.items, NUM_KILLED_ITEMS)
    say(f"writing {num_items} pictures, where they are not there yet")
    every = write_pictures(measure.WORK / f"memory-{num_items}", num_items, width=WIDTH, height=HEIGHT)
    some = write_pictures(measure.WORK / f"pictures-{WIDTH}x{HEIGHT}-{num_killed}", num_killed, width=WIDTH, height=HEIGHT)
    with measure.scratch_folder() as scratch:
        peak = measure_memory(every[0].parent, num_items, scratch)
        kills = kill_often(some, scratch, 3 if options.quick else NUM_KILLS)
    size = sum(path.stat().st_size for path in every)
    data = (
        f"{num_items} synthetic JPEGs of {WIDTH}x{HEIGHT} (benchmarks/pictures.py), {size / 1e9:.2f} GB; "
        f"{num_killed} of them for the kills"
    )
    values = {"memory": peak, "kills": kills}
    measure.write_result("memory", data=data, values=values, targets=judge(values), quick=options.quick)


def measure_memory(folder: Path, num_items: int, scratch: Path) -> dict[str, Any]:
    """Embed all of them from an empty cache, looking at the memory of the command and of what it starts."""
    told = scratch / "watched.json"
    words = ["embed", str(folder), "--out", str(scratch / "all.parquet"), "--json"]
    environment = clean_environment(HEADSTART_CACHE=str(scratch / "cache"))
    started = time.perf_counter()
    command = [sys.executable, str(HERE / "watched.py"), str(told), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    peaks = {"resident": 0, "proportional": 0}
    watcher = threading.Thread(target=watch_memory, args=(process, peaks))
    watcher.start()
    output, _ = process.communicate()
    watcher.join()
    seconds = time.perf_counter() - started
    if process.returncode or (embedded := json.loads(output))["items"] != num_items:
        sys.exit(f"embed ended with {process.returncode}: {output[-500:]}")
    own = json.loads(told.read_text(encoding="utf-8"))["peak_bytes"]
    together = peaks["resident"]
    say(f"{num_items} items in {seconds:.1f} s, peak {own / 1e6:.0f} MB, with the compiler {together / 1e6:.0f} MB")
    return {
        "items": num_items,
        "seconds": seconds,
        "items_per_second": num_items / seconds,
        "computed": embedded["misses"],
        "peak_bytes_of_the_command": own,
        "peak_bytes_with_the_compiler": {**peaks, "note": "sums over the processes, sampled every 0.05 s"},
        "store_bytes": sum(path.stat().st_size for path in (scratch / "cache" / "features").glob("*/*")),
    }


def watch_memory(process: subprocess.Popen, peaks: dict[str, int]) -> None:
    """Note the most that a process and its children had together, looking twenty times a second.

    Resident pages that several of them share count in each ("resident"), or once ("proportional", Linux only; there, a page
    shared with processes that have nothing to do with it counts less still, so the target is about the former).
    """
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        sums = {"resident": 0, "proportional": 0}
        try:
            for one in (parent, *parent.children(recursive=True)):
                told = one.memory_full_info()
                sums["resident"] += told.rss
                sums["proportional"] += told.pss if sys.platform == "linux" else told.rss
        except psutil.Error:  # one of them has just ended
            continue
        for name, value in sums.items():
            peaks[name] = max(peaks[name], value)
        time.sleep(SAMPLING_SECONDS)


def kill_often(paths: list[Path], scratch: Path, num_kills: int) -> dict[str, Any]:
    """Embed and kill, again and again; the store goes on from where it was, and begins anew when it is nearly full."""
    os.environ["HEADSTART_CACHE"] = str(scratch / "cache")
    prefix = compile_prefix(locate("auto")).wait()
    keys = [store_key(content_key(path)) for path in paths]
    clear(cache_root())
    run = start_embedding(paths, scratch, "undisturbed")
    wait_for_work(run, scratch / "undisturbed.log")
    started = time.perf_counter()
    if run.wait():
        sys.exit("the undisturbed run failed")
    work_seconds = time.perf_counter() - started
    clear(cache_root())
    generator = np.random.default_rng()
    kills: list[dict[str, Any]] = []
    while len(kills) < num_kills:
        kill = kill_once(paths, keys, prefix, scratch, delay=float(generator.uniform(0.0, work_seconds)))
        if kill is not None:
            kills.append(kill)
            say(f"kill {len(kills)}: {kill['stored']} stored, {kill['reported_but_lost']} of those reported are lost")
        if len(kills) < num_kills and (kill is None or kill["stored"] > 0.7 * len(paths)):
            clear(cache_root())
    if start_embedding(paths, scratch, "resumed").wait():
        sys.exit("the run after the kills failed")
    undisturbed, resumed = (read_vectors(scratch / f"{name}.parquet") for name in ("undisturbed", "resumed"))
    return {
        "items": len(paths),
        "batch_size": prefix.batch_size,
        "work_seconds_undisturbed": work_seconds,
        "kills": kills,
        "equal_to_undisturbed": bool(np.array_equal(undisturbed, resumed)),
    }


def start_embedding(paths: list[Path], scratch: Path, name: str) -> subprocess.Popen:
    folder, log, out = paths[0].parent, scratch / f"{name}.log", scratch / f"{name}.parquet"
    command = [sys.executable, str(HERE / "embed_telling.py"), str(log), str(folder), str(out)]
    return subprocess.Popen(command, env=clean_environment(), start_new_session=True)


def wait_for_work(process: subprocess.Popen, log: Path) -> None:
    """Wait until a run has told of its first items, or is over."""
    while not log.exists() and process.poll() is None:
        time.sleep(0.005)


def kill_once(paths: list[Path], keys: list[bytes], prefix: Prefix, scratch: Path, *, delay: float) -> dict[str, Any] | None:
    """Kill one run so many seconds after its first items, and look at the store; None if the run was over by then."""
    before = int(look_up(keys, prefix)["found"].sum())
    process, log = start_embedding(paths, scratch, "killed"), scratch / "killed.log"
    wait_for_work(process, log)
    time.sleep(delay)
    if process.poll() is not None:
        log.unlink(missing_ok=True)
        (scratch / "killed.parquet").unlink(missing_ok=True)
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    computed, reported = read_log(log)
    after = look_up(keys, prefix)
    stored = int(after["found"].sum())
    return {
        "seconds_after_its_first_items": round(delay, 3),
        "stored_before": before,
        "stored": stored,
        "corrupt": after["entries"] - stored,
        "store_says": after["why"],
        "reported_done": reported,
        "reported_but_lost": reported - int(after["found"][:reported].sum()),
        "computed": computed,
        "computed_but_lost": before + computed - stored,
        "output_half_written": is_half_written(scratch / "killed.parquet", len(paths)),
    }


def is_half_written(out: Path, num_items: int) -> bool:
    """Whether a file of the final name is there without being whole; it is removed."""
    if not out.exists():
        return False
    try:
        return pyarrow.parquet.read_table(out).num_rows != num_items
    except (OSError, pyarrow.ArrowException):
        return True
    finally:
        out.unlink()


def read_log(log: Path) -> tuple[int, int]:
    """Items computed, and items reported as done; the log is removed, as a later run may have its name."""
    lines = [line.split() for line in log.read_text(encoding="ascii").splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    computed = sum(int(count) for kind, count in lines if kind == "computed")
    return computed, max((int(count) for kind, count in lines if kind == "done"), default=0)


def look_up(keys: list[bytes], prefix: Prefix) -> dict[str, Any]:
    """Read every item from the store: which are there with a right checksum, and how many entries there are in all."""
    with feature_store(prefix, prefix.spec.preprocess.with_geometry("pad")) as store:
        _, found = store.get_many(keys)
        return {"found": found, "entries": sum(one.items for one in info(cache_root())), "why": store.why}


def read_vectors(path: Path) -> np.ndarray:
    """(N, D), ordered by id."""
    table = pyarrow.parquet.read_table(path).sort_by("id")
    return np.stack(table["vector"].to_numpy())


def judge(values: dict[str, Any]) -> list[Target]:
    memory, kills = values["memory"], values["kills"]
    every, batch = kills["kills"], kills["batch_size"]
    return [
        at_most(f"peak gigabytes of embed, {memory['items']} items", memory["peak_bytes_of_the_command"] / 1e9, MAX_GIGABYTES),
        at_most(
            "the same with the process that compiles the network, once, counted in",
            memory["peak_bytes_with_the_compiler"]["resident"] / 1e9,
            MAX_GIGABYTES,
        ),
        at_most(
            f"items reported done and lost, worst of {len(every)} kills", max(k["reported_but_lost"] for k in every), batch
        ),
        at_most("items computed and lost, worst kill: one batch", max(k["computed_but_lost"] for k in every), batch),
        exactly("values in the store that are not whole, all kills", sum(abs(k["corrupt"]) for k in every), 0),
        exactly("kills after which the store had to be mended", sum(bool(k["store_says"]) for k in every), 0),
        exactly("runs whose half-written output had its final name", sum(k["output_half_written"] for k in every), 0),
        exactly("features after the kills equal to those undisturbed, bit for bit", float(kills["equal_to_undisturbed"]), 1),
    ]


if __name__ == "__main__":
    main()
