"""What `fit` prints of tuning: a line a strategy, a short table of the blocks, and the advice."""

from __future__ import annotations

from typing import Any

from headstart.report.advice import advise
from headstart.report.attempted import describe_skipped, list_attempted, list_attempts, unit_of_gain
from headstart.report.blocks import Blocks, join_alike, list_blocks

_SPACE = "\N{NO-BREAK SPACE}"


def tell_tuning(content: dict[str, Any]) -> list[str]:
    """Say which strategies were tried, what became of each, which blocks were trained, and what is advised.

    Args:
        content: of report.json.

    Returns:
        Lines; without `tuning`, only advice that needs none.
    """
    tuning = content.get("tuning") or {}
    lines = []
    for attempt in list_attempted(content):
        gain = f"gain {attempt.measured} {unit_of_gain(content)}; " if attempt.measured else ""
        spent = f" ({attempt.seconds})" if attempt.seconds else ""
        lines.append(f"tried   {attempt.name}: {gain}{attempt.told}{spent}")
    if tuning.get("kept") == "extract" and not lines:
        lines.append(f"tuned   nothing: {tuning.get('reason') or 'as asked'}")
    elif skipped := describe_skipped(list_attempts(content)):
        lines.append(f"skipped {skipped}")
    blocks = list_blocks(content)
    if tuning and blocks is not None and blocks.trained:
        lines += _tell_blocks(blocks)
    lines += [f"advice  {advice.kind}: {advice.mend}" for advice in advise(content)]
    # A terminal's text is searched and copied; plain spaces serve that better.
    return [line.replace(_SPACE, " ") for line in lines]


def _tell_blocks(blocks: Blocks) -> list[str]:
    rows = join_alike(blocks)
    name_width, count_width = max(len(row.name) for row in rows), max(len(row.parameters) for row in rows)
    table = [f"{row.name.ljust(name_width)}  {row.parameters.rjust(count_width)}  {row.state}" for row in rows]
    heads = ["blocks", *[""] * (len(table) - 1)]
    told = [f"        {blocks.told}"] if blocks.told else []
    return [f"{head:<8}{row}" for head, row in zip(heads, table, strict=True)] + told
