"""What a strategy will take is predicted before torch is loaded, and what does not fit the budget costs no time."""

import json
import os
import subprocess
import sys

import pytest

from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.report.attempted import describe_skipped, suggest_budget
from headstart.select.cost import RATES, Rate, fold_choices, keep_rate, predict_cost, read_rates, typical_passes
from headstart.tuning.plan import TuningPlan


def info(modality="image", *, num_blocks=8):
    blocks = tuple(BlockInfo(name=f"blocks.{number}", width=8, num_parameters=100) for number in range(num_blocks))
    return BackboneInfo(
        name="n",
        architecture="n",
        modality=modality,
        licence="",
        source="",
        sha256="",
        width=8,
        num_parameters=800,
        blocks=blocks,
    )


def plan(strategy="last:2", *, epochs=20, views=2):
    return TuningPlan(strategy=strategy, epochs=epochs, batch_size=16, head_rate=1e-3, backbone_rate=1e-3, num_views=views)


def cost(strategy="last:2", *, num_items=500, rate=100.0, rates=None, started=False, **more):
    return predict_cost(
        plan(strategy, **more),
        info(),
        num_items=num_items,
        has_valid=False,
        items_per_second=rate,
        rates=rates or {},
        started=started,
    )


def test_more_blocks_cost_more():
    costs = [cost(strategy).seconds_an_item for strategy in ("last:1", "last:2", "last:4", "full")]
    assert costs == sorted(costs) and len(set(costs)) == 4
    assert typical_passes("contrastive", info("text")) < typical_passes("full", info("text"))
    assert typical_passes("last:8", info("text")) == typical_passes("full", info("text"))


def test_items_views_and_a_slow_machine_cost_more():
    assert cost(num_items=1_000).least_seconds > cost(num_items=500).least_seconds
    assert cost(rate=50.0).least_seconds > cost(rate=100.0).least_seconds
    assert cost(views=8).least_seconds - cost(views=2).least_seconds == pytest.approx(6 * 500 / 100)
    assert cost(started=True).least_seconds < cost().least_seconds


def test_what_was_measured_replaces_what_is_typical():
    known = cost(rates={"last:2": Rate(passes=3.0, start_seconds=1.0)})
    assert known.measured and not cost().measured
    assert known.seconds_an_item == pytest.approx(0.03)
    assert cost("full", rates={"last:2": Rate(passes=3.0, start_seconds=1.0)}).measured is False


def test_the_least_budget_is_that_of_the_quickest_choice_of_folds():
    known = {"last:2": Rate(passes=1.0, start_seconds=0.0)}
    found = predict_cost(plan(views=0, epochs=20), info(), num_items=1_000, has_valid=True, items_per_second=100.0, rates=known)
    expected = min(share * min(20, least) for _, share, least in fold_choices(plan(epochs=20), 1_000, has_valid=True))
    assert found.least_seconds == pytest.approx(1_000 / 100 + expected * 1_000 / 100)


def test_rates_are_kept_beside_the_compiled_network(tmp_path):
    model = tmp_path / "prefix.onnx"
    assert read_rates(model) == {} == read_rates(None)
    keep_rate(model, "last:2", Rate(passes=0.5, start_seconds=9.0))
    keep_rate(model, "full", Rate(passes=5.0, start_seconds=9.0))
    keep_rate(model, "last:2", Rate(passes=0.25, start_seconds=8.0))
    assert read_rates(model) == {"last:2": Rate(passes=0.25, start_seconds=8.0), "full": Rate(passes=5.0, start_seconds=9.0)}
    keep_rate(None, "full", Rate(passes=5.0, start_seconds=9.0))
    keep_rate(tmp_path / "absent" / "prefix.onnx", "full", Rate(passes=5.0, start_seconds=9.0))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"full": {}}', '{"full": 3}', "\x00", '{"full": {"passes": "a", "start_seconds": 1}}',
     '{"full": {"passes": NaN, "start_seconds": 1}}', '{"full": {"passes": -1, "start_seconds": 1}}'],
)  # fmt: skip
def test_damaged_rates_are_none(tmp_path, content):
    (tmp_path / RATES).write_text(content)
    assert read_rates(tmp_path / "prefix.onnx") == {}
    keep_rate(tmp_path / "prefix.onnx", "full", Rate(passes=5.0, start_seconds=9.0))
    assert read_rates(tmp_path / "prefix.onnx") == {"full": Rate(passes=5.0, start_seconds=9.0)}


@pytest.mark.parametrize(("seconds", "budget"), [(8, "10s"), (60, "80s"), (72, "90s"), (73, "2m"), (200, "5m"), (3_600, "75m")])
def test_the_budget_that_is_suggested_leaves_room(seconds, budget):
    assert suggest_budget(seconds) == budget
    number, unit = float(budget[:-1]), budget[-1]
    assert number * (60 if unit == "m" else 1) >= seconds


def test_skipped_strategies_are_one_line_with_the_quickest_first():
    attempts = [
        {"strategy": "full", "code": "over_budget", "needed_seconds": 780.0},
        {"strategy": "last:2", "code": "over_budget", "needed_seconds": 61.0},
        {"strategy": "lora", "gate": {}},
    ]
    told = describe_skipped(attempts)
    assert "\n" not in told and told.index("last:2") < told.index("full") and told.endswith("--budget 80s")
    assert "lora" not in told
    assert describe_skipped(attempts[2:]) == ""


WATCHED = """
import sys
from headstart.cli import main
sys.argv = ["headstart", *sys.argv[1:]]
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def test_what_does_not_fit_the_budget_loads_no_torch(pictures, tmp_path):
    rows = [(path, path.parent.name) for path in sorted(pictures.glob("*/*"))]
    names = sorted({label for _, label in rows})
    # Every fifth label is the next class's, so that the baseline leaves something to gain.
    spoilt = [(path, names[(names.index(label) + (place % 5 == 0)) % len(names)]) for place, (path, label) in enumerate(rows)]
    table = tmp_path / "noisy.csv"
    table.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in spoilt), encoding="utf-8")
    words = ["fit", str(table), "--budget", "1s", "--out", str(tmp_path / "model.hs"), "--json"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", WATCHED, *words], capture_output=True, text=True, check=False, env=os.environ, timeout=120
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["gate"]["code"] == "over_budget" and summary["gate"]["tried"] == []
    assert "--budget" in summary["gate"]["reason"]
    assert done.stderr.strip().splitlines()[-1] == "False"
    report = json.loads((tmp_path / "model.hs" / "report.json").read_text(encoding="utf-8"))
    assert {attempt["code"] for attempt in report["tuning"]["attempts"]} == {"over_budget"}
    assert all(attempt["needed_seconds"] > 1 for attempt in report["tuning"]["attempts"])
