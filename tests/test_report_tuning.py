"""What page, card and terminal tell of tuning, out of report.json alone."""

import copy
import json
import re
from types import SimpleNamespace

import pytest

from headstart.cli.show import Narrator, Shown, show_fit
from headstart.cli.tuning import tell_tuning
from headstart.model.model import Report
from headstart.report import curves
from headstart.report.adaptation import describe_losses, describe_rates, describe_tuning, list_plan
from headstart.report.advice import judge_gate
from headstart.report.attempted import describe_on_test, describe_skipped, list_attempted
from headstart.report.blocks import join_alike, list_blocks, write_count
from headstart.report.card import model_card
from headstart.report.page import render_report
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.stopping import EarlyStopping, kept_epoch

BLOCKS = [("stem", 928), ("blocks.0", 896), ("blocks.1", 2_300_000), ("blocks.2", 605_440), ("conv_head", 412_160), ("pool", 0)]
PLAN = {
    "strategy": "last:2", "epochs": 6, "batch_size": 32, "head_rate": 0.001, "backbone_rate": 0.0005, "block_decay": 0.8,
    "num_views": 4, "label_smoothing": 0.1, "averaging": "ema", "ema_decay": 0.99, "interpolations": [0.25, 1.0], "hidden": [],
    "lora_rank": 16, "reasons": {"epochs": "as asked"}, "share_of_tuned_weights": 0.25, "kept_epoch": 5,
}  # fmt: skip
PASSED = {
    "passed": True, "gain": 0.041, "low": 0.013, "high": 0.07, "loss": "log-loss", "floor_loss": 0.52, "tuned_loss": 0.43,
    "loss_gain": 0.09, "loss_low": 0.03, "loss_high": 0.15, "num_items": 514, "basis": "514 items of 5 folds",
}  # fmt: skip
UNSURE = PASSED | {
    "passed": False, "gain": 0.02, "low": -0.01, "high": 0.05, "tuned_loss": 0.5, "loss_gain": 0.02, "loss_low": -0.02,
    "loss_high": 0.06,
}  # fmt: skip
WORSE = PASSED | {
    "passed": False, "gain": -0.05, "low": -0.08, "high": -0.02, "tuned_loss": 0.6, "loss_gain": -0.08, "loss_low": -0.11,
    "loss_high": -0.05,
}  # fmt: skip
SURER = PASSED | {"passed": False, "gain": -0.01, "low": -0.03, "high": 0.01}
VALUES = PASSED | {"loss": "squared error", "loss_gain": 0.041, "loss_low": 0.013, "loss_high": 0.07}
BETTER = "better than the floor beyond doubt (log-loss 0.430 against 0.520, lower by +0.030 to +0.150)"
FAR_WORSE = "worse than the floor beyond doubt (log-loss 0.600 against 0.520, lower by −0.110 to −0.050)"
NOT_BETTER = "not better than the floor beyond doubt (log-loss 0.500 against 0.520, lower by −0.020 to +0.060)"


def make_history(epochs=6, **more):
    return [
        {
            "epoch": epoch,
            "train_loss": 0.9 / (epoch + 1),
            "valid_loss": 0.5 + 0.001 * epoch,
            "valid_accuracy": 0.8 + epoch / 100,
            "learning_rate": 0.001 * (1 - epoch / epochs),
            "seconds": 1.0,
        }
        | more
        for epoch in range(epochs)
    ]


def make_attempt(strategy="last:2", *, kept=True, gate=PASSED, reason="gain …", history=None, **plan):
    rows = make_history() if history is None else history
    return {"strategy": strategy, "kept": kept, "reason": reason, "seconds": 162.1, "plan": PLAN | plan, "gate": gate,
            "history": rows if kept else []}  # fmt: skip


def make_tuned(*attempts, kept="last:2", cut="blocks.1", reason="gain …"):
    attempts = attempts or (make_attempt(),)
    frozen = [name for name, _ in BLOCKS[:3]] if cut else [name for name, _ in BLOCKS] if kept == "extract" else []
    return {
        "summary": {
            "artifact": "pets.hs", "modality": "image", "task": "single", "backbone": "efficientnet-lite0", "strategy": kept,
            "labels": ["cat", "dog"], "counts": {"train": 400, "test": 100}, "test": {"accuracy": 0.9},
            "floor": {"head": "ridge", "cv_accuracy": 0.887}, "gate": {"tried": ["last:2"], "kept": kept, "reason": reason},
            "seconds": {"total": 12.0, "tune": 10.0}, "warnings": [], "cache": {"hits": 1, "misses": 2},
        },
        "data": {"classes": [{"label": "cat", "train": 200, "test": 50}, {"label": "dog", "train": 200, "test": 50}]},
        "backbone": {"name": "efficientnet-lite0", "blocks": [
            {"name": name, "width": 32, "num_parameters": count, "parameters": count, "frozen": name in frozen}
            for name, count in BLOCKS]},
        "tuning": {"kept": kept, "reason": reason, "cut": cut, "attempts": list(attempts)},
    }  # fmt: skip


def make_extract(reason="too few labels to tune: 12 a class, fewer than 20"):
    report = make_tuned(kept="extract", cut=None, reason=reason)
    report["tuning"]["attempts"] = []
    return report


def text_of(page):
    plain = re.sub(r"<style.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", plain)).replace("\xa0", " ")


def charts_of(page):
    found = re.findall(r'<svg class="chart" role="img" aria-label="([^"]*)"', page)
    return [label.replace("\xa0", " ") for label in found]


# the page


def test_page_tells_what_was_tuned():
    tried = (make_attempt("full", kept=False, gate=UNSURE), make_attempt("lora", kept=False, gate=WORSE), make_attempt())
    page = render_report(make_tuned(*tried))
    told = text_of(page)
    for expected in (
        "Everything up to blocks.1 stayed frozen; the blocks behind it were trained together with the head",
        "1.0 M of 3.3 M parameters trained", "25 % of the way",
        "(ridge head), got 0.887 in cross-validation, on the folds that chose it",
        "+4.1 [+1.3, +7.0]", "−5.0 [−8.0, −2.0]", "2 min 42 s", f"Kept: {BETTER}.",
        f"Dropped: {NOT_BETTER}.", f"Dropped: {FAR_WORSE}.",
        "Measured on 514 items of 5 folds.", "The numbers of full", "highest learning rate of the head 0.001",
        "epochs 6 as asked", "samples a step 32", "the cut everything above ran once", "blocks.2 32 605,440 trained",
        "stem 32 928 frozen", "pool 32 0 no weights",
    ):  # fmt: skip
        assert expected in told, expected
    assert charts_of(page)[:4] == [
        "Gains over the floor in points of accuracy, with 95 % intervals: full +2.0, from −1.0 to +5.0; "
        "lora −5.0, from −8.0 to −2.0; last:2 +4.1, from +1.3 to +7.0.",
        "The loss over 6 epochs: training items 0.900 to 0.150, validation items 0.500 to 0.505.",
        "The share labelled right over 6 epochs: validation items 80 % to 85 %.",
        "The learning rate over 6 epochs: learning rate of the head 0.001 to 0.000167.",
    ]
    # The blocks are shown once: beside what was tuned, or with the backbone.
    assert told.count("605,440") == 1


def test_the_cut_stands_between_the_last_frozen_and_the_first_trained_block():
    page = render_report(make_tuned())
    rows = re.findall(r'<tr class="([a-z-]+)">', page[page.index("What was trained") :])
    assert rows == ["frozen", "frozen", "frozen", "cut", "trained", "trained", "no-weights"]


@pytest.mark.parametrize("epochs", [1, 2, 60])
def test_any_number_of_epochs_can_be_drawn(epochs):
    page = render_report(
        make_tuned(make_attempt(history=make_history(epochs), kept_epoch=epochs - 1, share_of_tuned_weights=1.0))
    )
    told = charts_of(page)
    assert f"over {epochs} epoch{'s' if epochs > 1 else ''}:" in told[1]
    assert page.count(">kept</text>") == 3
    # Weights between those it began with and the tuned ones are of no epoch.
    between = make_attempt(history=make_history(epochs), kept_epoch=epochs - 1, share_of_tuned_weights=0.5)
    assert ">kept</text>" not in render_report(make_tuned(between))


def test_the_kept_epoch_is_marked_only_where_it_is_known():
    for unknown in (None, 99, -1):
        assert ">kept</text>" not in render_report(make_tuned(make_attempt(kept_epoch=unknown)))


def test_a_single_epoch_is_a_dot_for_a_line_of_one_point_is_not_seen():
    few, many = (curves.draw_losses(make_history(epochs)).svg for epochs in (1, 60))
    assert few.count("losses-m") and few.count("<use") > many.count("<use")


def test_which_epoch_was_kept_is_known_of_early_stopping_and_of_no_callback():
    stopping = EarlyStopping(restore_best_weights=True)
    stopping.best_epoch = 3
    assert kept_epoch((), 6) == 5
    assert kept_epoch((stopping,), 6) == 3
    assert kept_epoch((EarlyStopping(restore_best_weights=False),), 6) == 5

    class Own(Callback):
        """May put other weights there."""

    assert kept_epoch((Own(),), 6) is None


def test_curves_leave_out_what_is_no_number():
    rows = make_history(4)
    rows[1]["valid_loss"] = float("nan")
    rows[2]["valid_loss"] = None
    chart = curves.draw_losses(rows)
    assert chart is not None and "validation items 0.500 to 0.503" in chart.description
    assert curves.draw_losses([{"epoch": 0}]) is None
    assert curves.draw_scores([]) is None and curves.draw_rates([]) is None and curves.draw_gains([], "points") is None


def test_train_scores_are_drawn_where_they_were_measured_and_errors_for_values():
    chart = curves.draw_scores(make_history(train_accuracy=0.9))
    assert chart is not None and "training items 90\xa0% to 90\xa0%" in chart.description
    errors = curves.draw_scores([{"epoch": 0, "valid_rmse": 4.4}, {"epoch": 1, "valid_rmse": 3.1}])
    assert errors is not None and errors.description.startswith("The root mean squared error over 2 epochs")
    report = make_tuned(make_attempt(history=[{"epoch": 0, "train_loss": 1.0, "valid_loss": 0.5, "valid_rmse": 4.4}]))
    report["summary"]["task"] = "value"
    told = text_of(render_report(report))
    assert "Errors" in told and "points of explained variance" in told


def test_captions_say_what_the_curves_are_of():
    assert describe_losses(PLAN) == (
        "Training is measured on augmented views and with smoothed labels, while it goes on; validation is not. "
        "Validation is of the weights' running average."
    )
    assert describe_losses({"num_views": 0, "averaging": "none"}) == ""
    assert "has 50\xa0% of it, and each block before it 80\xa0% of the one behind" in describe_rates(PLAN)
    assert describe_rates({}) == "The head's, at the end of each epoch."
    assert "the head is solved afterwards" in describe_rates({**PLAN, "strategy": "contrastive"})


def test_every_number_of_the_plan_is_told_with_its_reason():
    rows = {name: (value, reason) for name, value, reason in list_plan(make_attempt())}
    assert rows["epochs"] == ("6", "as asked")
    assert rows["share of the tuned weights that was kept"][0] == "0.25"
    assert rows["shares of the tuned weights to choose from"] == ("0.25, 1", "")
    assert "rank of the low-rank changes" not in rows and "kept epoch" not in rows
    assert "rank of the low-rank changes" in {name for name, *_ in list_plan(make_attempt("lora"))}
    new = dict((name, value) for name, value, _ in list_plan({"plan": {"a_new_number": 3, "flag": True}}))
    assert new == {"a new number": "3", "flag": "yes"}
    assert list_plan({}) == []


def test_extract_says_plainly_why_nothing_was_tuned():
    told = text_of(render_report(make_extract()))
    assert "only the head was solved. No network was tuned: too few labels to tune: 12 a class, fewer than 20." in told
    assert "6 blocks, all 3.3 M parameters frozen" in told
    assert "What was tried" not in told and "Learning rate" not in told
    dropped = make_tuned(make_attempt(kept=False, gate=UNSURE), kept="extract", cut=None)
    assert "No tuned network was kept, because none is better beyond doubt." in describe_tuning(dropped)
    skipped = make_attempt(kept=False, gate=None) | {"code": "over_budget", "needed_seconds": 128.0}
    slow = make_tuned(skipped, kept="extract", cut=None, reason=describe_skipped([skipped]))
    told = text_of(render_report(slow))
    assert "would take about 2 min: --budget 3m." in told.replace("\xa0", " ") and "What was tried" not in told


def test_other_strategies_have_their_own_words():
    full = make_tuned(make_attempt("full", share_of_tuned_weights=1.0), kept="full", cut=None)
    assert describe_tuning(full).replace("\xa0", " ") == (
        "The whole network was trained together with its head (all 3.3 M parameters trained)."
    )
    low_rank = make_tuned(make_attempt("lora", share_of_tuned_weights=1.0), kept="lora", cut=None)
    assert "Low-rank changes" in describe_tuning(low_rank)
    assert {row.state for row in list_blocks(low_rank).rows} == {"adapted", "no weights"}
    head = make_tuned(make_attempt("head", hidden=[512, 512]), kept="extract", cut=None)
    assert "a head with hidden layers (512, 512) was trained" in describe_tuning(head)


@pytest.mark.parametrize(
    ("kept", "gate", "reason", "told"),
    [
        (True, PASSED, "as asked; …", f"kept, as asked: {BETTER}"),
        (True, UNSURE, "as asked; …", f"kept, as asked: {NOT_BETTER}"),
        (True, WORSE, "as asked; …", f"kept, as asked: {FAR_WORSE}"),
        (False, PASSED, "…", f"dropped: {BETTER}; another gained more"),
        (True, VALUES, "as asked; …", "kept, as asked: better than the floor beyond doubt"),
        (
            False,
            SURER,
            "…",
            "dropped: surer of the truth than the floor, yet less often right (log-loss 0.430 against 0.520, "
            "lower by +0.030 to +0.150)",
        ),
        (False, None, "not tried: no time", "not tried: no time"),
    ],
)
def test_what_became_of_a_strategy(kept, gate, reason, told):
    (attempted,) = list_attempted(make_tuned(make_attempt(kept=kept, gate=gate, reason=reason)))
    assert attempted.told == told
    assert bool(attempted.measured) == (gate is not None)


def test_hostile_names_are_shown_as_they_are():
    report = make_tuned(make_attempt("<script>alert(1)</script>$x$", basis="<b>x</b>"), cut="</style><img src=x>")
    report["backbone"]["blocks"][0]["name"] = "</svg><script>"
    report["tuning"]["attempts"][0]["gate"] = PASSED | {"basis": "<i>basis</i>"}
    page = render_report(report)
    assert "<script" not in page and "<img src=x" not in page and "<i>basis" not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in re.sub(r"\\<", "", model_card(report))


def test_older_artifacts_know_of_no_tuning():
    whole = make_tuned()
    older = {name: part for name, part in whole.items() if name != "tuning"}
    older["backbone"] = {"name": "efficientnet-lite0", "blocks": [{"name": "stem", "width": 32, "num_parameters": 928}, {}]}
    told = text_of(render_report(older))
    assert "What was tried, and what was kept" in told and "Kept: last:2." in told and "2 blocks" in told and "928" in told
    assert "How it was adapted" not in model_card(older)
    assert tell_tuning(older) == []


def test_any_part_of_tuning_may_be_missing():
    whole = make_tuned()
    for part in list(whole["tuning"]):
        report = copy.deepcopy(whole)
        del report["tuning"][part]
        render_report(report), model_card(report), tell_tuning(report)
    for part in list(whole["tuning"]["attempts"][0]):
        report = copy.deepcopy(whole)
        del report["tuning"]["attempts"][0][part]
        render_report(report), model_card(report), tell_tuning(report)
    for empty in ({}, {"kept": "last:2"}, {"kept": "last:2", "attempts": [{}]}, {"kept": "extract"}):
        report = whole | {"tuning": empty}
        assert render_report(report) and model_card(report) and isinstance(tell_tuning(report), list)


def test_a_report_that_went_through_json_tells_the_same():
    report = make_tuned()
    again = json.loads(json.dumps(report))
    assert render_report(again) == render_report(report)
    assert (model_card(again), tell_tuning(again)) == (model_card(report), tell_tuning(report))


# blocks


def test_frozen_blocks_are_joined_in_a_short_table_and_a_few_trained_ones_are_not():
    rows = join_alike(list_blocks(make_tuned()))
    assert [(row.name, row.parameters, row.state) for row in rows] == [
        ("stem … blocks.1", "2,301,824", "frozen"),
        ("blocks.2", "605,440", "trained"),
        ("conv_head", "412,160", "trained"),
    ]
    (all_of_them,) = join_alike(list_blocks(make_tuned(make_attempt("full"), kept="full", cut=None)))
    assert (all_of_them.name, all_of_them.state) == ("stem … conv_head", "trained")


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0"), (864, "864"), (99_999, "99,999"), (700_000, "0.7 M"), (3_371_008, "3.4 M"), (1.3e9, "1.3 G")]
)
def test_parameters_in_words(count, told):
    assert write_count(int(count)).replace("\xa0", " ") == told


# card


def test_card_tells_strategy_cut_and_verdict():
    card = model_card(make_tuned()).replace("\xa0", " ")
    for expected in (
        "## How it was adapted", "- Strategy: last:2", "- Cut: behind blocks.1; what is before it is frozen",
        "1.0 M of 3.3 M parameters trained", f"last:2: kept: {BETTER}.",
        "Gain over the floor +4.1 \\[+1.3, +7.0\\] points of accuracy, on 514 items of 5 folds.",
    ):  # fmt: skip
        assert expected in card, expected
    card = model_card(make_extract())
    assert "- Strategy: extract" in card and "No network was tuned: too few labels" in card and "Cut:" not in card


# terminal


def test_terminal_tells_strategies_blocks_and_advice_in_few_lines():
    tried = (make_attempt("full", kept=False, gate=UNSURE), make_attempt())
    assert tell_tuning(make_tuned(*tried)) == [
        f"tried   full: gain +2.0 [−1.0, +5.0] points of accuracy; dropped: {NOT_BETTER} (2 min 42 s)",
        f"tried   last:2: gain +4.1 [+1.3, +7.0] points of accuracy; kept: {BETTER} (2 min 42 s)",
        "blocks  stem … blocks.1  2,301,824  frozen",
        "        blocks.2           605,440  trained",
        "        conv_head          412,160  trained",
        "        1.0 M of 3.3 M parameters trained",
    ]
    assert tell_tuning(make_extract()) == ["tuned   nothing: too few labels to tune: 12 a class, fewer than 20"]
    unsure = tell_tuning(make_tuned(make_attempt(gate=UNSURE, reason="as asked; …")))
    assert unsure[-1].startswith("advice  gain unsure: more labelled items")


def test_fit_shows_tuning_to_people_and_one_object_to_programs(tmp_path, capsys):
    content = make_tuned()
    told = SimpleNamespace(report=Report(content=content))
    show_fit(told, tmp_path, Shown(as_json=False, quiet=False))
    printed = capsys.readouterr().out
    assert "  tried   last:2: gain +4.1" in printed and "  blocks  stem … blocks.1  2,301,824  frozen" in printed
    assert max(len(line) for line in printed.splitlines()) < 260
    show_fit(told, tmp_path, Shown(as_json=True, quiet=False))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and list(json.loads(printed)) == list(content["summary"])
    show_fit(told, tmp_path, Shown(as_json=False, quiet=True))
    assert capsys.readouterr().out == ""


def test_progress_names_every_step_of_tuning(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    steps = ["features for last:2", "trying last:2", "tuning", "features of the tuned network"]
    with Narrator(quiet=False) as narrator:
        for step in steps:
            narrator.step(step, 0, 4)
            narrator.step(step, 2, 4)
    shown = capsys.readouterr()
    assert shown.out == ""
    for step in steps:
        assert step in shown.err
    with Narrator(quiet=True) as narrator:
        narrator.step("tuning", 1, 2)
    assert capsys.readouterr().err == ""


def on_test(code="worse", metric="accuracy"):
    gain = {"worse": (-0.04, -0.07, -0.01), "better": (0.04, 0.01, 0.07), "unsure": (0.01, -0.02, 0.04)}[code]
    return {
        "metric": metric, "num_items": 400, "tuned": 0.74, "tuned_ci95": [0.70, 0.78], "baseline": 0.78,
        "baseline_ci95": [0.74, 0.82], "gain": gain[0], "gain_ci95": list(gain[1:]), "code": code,
    }  # fmt: skip


def test_the_floors_test_score_is_told_beside_the_tuned_ones_and_the_validation_gain_is_not():
    chosen = PASSED | {"passed": False, "chosen": True, "basis": "60 validation items, which chose the weights, too"}
    report = make_tuned(make_attempt(gate=chosen, reason="as asked; gain"))
    report["tuning"]["on_test"] = on_test()
    told = describe_on_test(report).replace("\xa0", " ")
    assert "74 %" in told and "78 %" in told and "400" in told and "\N{MINUS SIGN}4.0" in told
    (attempted,) = list_attempted(report)
    assert attempted.gain is None and attempted.measured == "" and attempted.basis == ""
    for words in (attempted.told, text_of(render_report(report)), model_card(report), "\n".join(tell_tuning(report))):
        assert "better than the floor" not in words
    assert told.split(";")[0] in describe_tuning(report).replace("\xa0", " ")
    assert describe_on_test(make_extract()) == ""


@pytest.mark.parametrize(("code", "kind"), [("worse", "floor better"), ("better", None), ("unsure", "gain unsure")])
def test_advice_goes_by_the_test_items_where_the_validation_items_chose_the_weights(code, kind):
    flattering = PASSED | {"passed": False, "chosen": True}
    advice = judge_gate({"strategy": "full", "gate": flattering}, on_test(code))
    assert (advice.kind if advice else None) == kind
    out_of_fold = PASSED | {"passed": True}
    assert judge_gate({"strategy": "full", "gate": out_of_fold}, on_test(code)) is None


def test_comparisons_of_other_tasks_are_told():
    for metric in ("mae", "micro_f1"):
        report = make_tuned(make_attempt())
        report["tuning"]["on_test"] = on_test("better", metric) | ({"gain": None, "gain_ci95": None} if metric != "mae" else {})
        told = describe_on_test(report)
        assert "0.740" in told and "0.780" in told and "points" not in told
