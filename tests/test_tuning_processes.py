"""Training in several processes that share each batch: the weights are those of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headstart.tuning.loop import tune
from tuning_toys import toy_network, toy_plan, toy_set

SHARED = """
import json
import os
import sys
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import save_file
from tuning_toys import toy_network, toy_plan, toy_set
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.loop import tune

torch.set_num_threads(1)
folder = Path(sys.argv[1])
plan = toy_plan(epochs=3, balance="weights", unfreeze_every=1, averaging="ema", l2_sp=0.01)
train = toy_set(29, weights=np.array([1.0, 4.0, 0.3]))
checkpoint = Checkpoint(path=folder / "full.pt", about={})
outcome = tune(toy_network(plan), train, toy_set(11, seed=1), task="single", plan=plan, checkpoint=checkpoint)
rank = os.environ["RANK"]
save_file({name: tensor.contiguous() for name, tensor in outcome.weights.items()}, folder / f"{rank}.safetensors")
(folder / f"{rank}.json").write_text(json.dumps(outcome.history))
"""


@pytest.mark.long
def test_two_processes_come_to_the_weights_of_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SHARED, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(script), str(tmp_path)]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1)]
    histories = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    plan = toy_plan(epochs=3, balance="weights", unfreeze_every=1, averaging="ema", l2_sp=0.01)
    train = toy_set(29, weights=np.array([1.0, 4.0, 0.3]))
    expected = tune(toy_network(plan), train, toy_set(11, seed=1), task="single", plan=plan)
    for name, tensor in expected.weights.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    for row, other, alone in zip(*histories, expected.history, strict=True):
        for measure in ("train_loss", "valid_loss", "valid_accuracy"):
            assert row[measure] == other[measure]
            assert row[measure] == pytest.approx(alone[measure], rel=1e-3)
    assert (tmp_path / "full.pt").is_file()
