"""Callbacks from the outside: what docs/callbacks.md shows, run as it stands, and what a fit leaves in the model's folder."""

import csv
import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import headstart
from headstart.callbacks import EarlyStopping

PAGE = (Path(__file__).parents[1] / "docs" / "callbacks.md").read_text(encoding="utf-8")
# A network that is quick to train, in place of the page's.
QUICK = 'strategy="last:1", backbone="random:test_resnet", image_size=32, epochs=2, out="flowers.hs"'
MODULES = ("activations", "base", "graph", "logs", "monitor", "rates", "stopping", "tensor_board", "weights")


@pytest.fixture(scope="module", autouse=True)
def one_thread(compiling_here):
    """Networks as small as these only wait for a second thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_THREADS", "1")
        yield


@pytest.mark.long
def test_the_page_does_what_it_says(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").symlink_to(pictures)
    names = {"headstart": headstart}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    first, *others = blocks
    for block in others:
        exec(block, names)
    counted = names["CountSteps"]()
    made = [names[name] for name in ("best", "every", "halved", "plateau", "board", "activations")]
    names["mine"] = [names["StopAtAccuracy"](1.0), counted, *made, *names["limits"], *names["telling"]]
    assert 'strategy="last:2",' in first
    exec(first.replace('strategy="last:2",', f"{QUICK},").replace("callbacks=[", "callbacks=[*mine, "), names)

    with (tmp_path / "flowers.hs" / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "my-history.csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == rows
    events = EventAccumulator(str(tmp_path / "flowers.hs" / "logs"))
    events.Reload()
    assert "missing" in rows[0]
    for name in ("valid_loss", "missing"):
        assert [event.value for event in events.Scalars(name)] == pytest.approx([float(row[name]) for row in rows])
    assert events.Tags()["graph"] is True
    assert any(name.startswith("gradients/tail.") for name in events.Tags()["histograms"])
    assert len(list((tmp_path / "weights").iterdir())) == len(list((tmp_path / "activations").iterdir())) == len(rows)
    assert names["seen"] == sorted(names["seen"])
    assert counted.steps == len(names["seen"]) > 0
    layers = np.load(tmp_path / "activations" / "epoch-0001.npz")
    assert layers["head.layers.0"].shape == (1, 4)
    assert load_file("best.safetensors")["head.layers.0.weight"].shape[0] == 4

    saved = headstart.load(tmp_path / "flowers.hs")
    assert saved.predict(pictures / "rings" / "0.png")[0].label in saved.labels
    copied = saved.save(tmp_path / "copy.hs")
    assert sorted(path.name for path in (copied / "logs").iterdir()) == sorted(
        path.name for path in (tmp_path / "flowers.hs" / "logs").iterdir()
    )
    assert headstart.load(copied).labels == saved.labels
    told = (tmp_path / "flowers.hs" / "logs" / "items.tsv").read_text().splitlines()
    assert {line.split("\t")[0] for line in told[1:]} <= set(saved.labels)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_run(name):
    module = importlib.import_module(f"headstart.tuning.callbacks.{name}")
    names = {"headstart": headstart} | vars(importlib.import_module("headstart.callbacks"))
    found = doctest.testmod(module, extraglobs=names)
    assert found.failed == 0


def test_every_callback_is_on_the_page_and_has_an_example():
    door = importlib.import_module("headstart.callbacks")
    for name in set(door.__all__) - {"Callback"}:
        assert f"**{name}**" in PAGE
        assert ">>> " in getattr(door, name).__doc__
    hooks = [name for name in vars(headstart.Callback) if name.startswith("on_")]
    assert len(hooks) == 8
    for hook in (*hooks, "state", "restore"):
        assert f"`{hook}(" in PAGE


def test_a_callback_in_vain_is_not_called(pictures, tmp_path):
    stopping = EarlyStopping()
    headstart.fit(
        pictures,
        out=tmp_path / "m.hs",
        strategy="extract",
        backbone="random:test_resnet",
        image_size=32,
        callbacks=[stopping],
    )
    assert stopping.best is None
    assert not (tmp_path / "m.hs" / "logs").exists()
