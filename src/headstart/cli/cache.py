"""The commands that look after the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.cli.options import JsonOption

cache_app = typer.Typer(no_args_is_help=True, help="The feature store: what is in it, and making room.", rich_markup_mode=None)


@cache_app.command("info")
def cache_info(as_json: JsonOption = False) -> None:
    """Say where the cache is, and what is in it."""
    from headstart.cli.show import show_cache

    show_cache(as_json=as_json)


@cache_app.command("prune")
def cache_prune(
    limit: Annotated[str | None, typer.Option(help="Keep at most this much, as 5GB; least recently used go first.")] = None,
) -> None:
    """Make room: remove the features least recently used until the rest fits the limit."""
    from headstart.cli.show import megabytes
    from headstart.features.store import parse_limit, prune
    from headstart.runtime import cache_root

    freed = prune(cache_root(), None if limit is None else parse_limit(limit))
    typer.echo(f"freed {megabytes(freed)}")


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove all features and all compiled networks."""
    from headstart.cli.show import megabytes
    from headstart.features.compile import clear_compiled
    from headstart.features.store import clear
    from headstart.runtime import cache_root

    typer.echo(f"freed {megabytes(clear(cache_root()) + clear_compiled())}")
