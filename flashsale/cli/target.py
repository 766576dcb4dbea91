"""`flashsale target`: somebody's shop, before it is stormed."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from flashsale.campaign.stores import DEFAULT_STATE_DIR, TOKENS, find_base_url, shop_books
from flashsale.campaign.trying import mission_to_try, scenario_to_try, try_books, try_steps
from flashsale.cli.options import (
    BaseUrl,
    BooksRedisUrl,
    BooksUrl,
    CaFile,
    CertFile,
    Insecure,
    KeyFile,
    StateDir,
    tls_of,
)
from flashsale.cli.terminal import tell
from flashsale.errors import ExitCode, FlashsaleError, UnreachableError

command = typer.Typer(help="Somebody's shop: what a file of it says, and what is understood.")


@command.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@command.command("check")
def check(
    shop: Annotated[str, typer.Argument(help="The .toml of the shop, or a preset's name.")],
    voucher: Annotated[int, typer.Option(help="What is claimed.", min=1)] = 1,
    tokens: Annotated[
        Path | None,
        typer.Option(help="The users' file.", show_default=f"{TOKENS} in the state folder"),
    ] = None,
    base_url: BaseUrl = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    books_url: BooksUrl = None,
    books_redis_url: BooksRedisUrl = None,
    ca: CaFile = None,
    cert: CertFile = None,
    key: KeyFile = None,
    insecure: Insecure = False,
) -> None:
    """Send one request of each kind as the first user, and show what was understood.

    It is a real claim: a unit may be sold. The books are read before and after it, and nothing is
    written there. Exits with 2 where an answer was not understood, or the books are not as the file
    says, with 7 where they cannot be reached; nothing is sold then.
    """
    scenario = scenario_to_try(shop, voucher)
    where = find_base_url(state_dir, base_url)
    tls = tls_of(ca, cert, key, insecure)
    mission = mission_to_try(scenario, where, tokens or state_dir / TOKENS, tls)
    kept = None
    if scenario.books is not None:
        kept = shop_books(scenario.books, where, books_url, books_redis_url, tls)
        _, trouble = try_books(kept, voucher)
        if trouble is not None:
            _end_unread(trouble)
    tried = list(try_steps(mission))
    for each in tried:
        tell(str(each))
    unread = [each for each in tried if not each.is_understood]
    trouble = None
    if kept is not None:
        lines, trouble = try_books(kept, voucher, tried)
        for line in lines:
            tell(f"books: {line}")
    for each in unread:
        tell(f"not understood: {each.step}; {each.cure}", err=True)
    if trouble is not None:
        _end_unread(trouble)
    if unread:
        raise typer.Exit(ExitCode.USAGE)


def _end_unread(trouble: FlashsaleError) -> NoReturn:
    tell(f"books: not read: {trouble}", err=True)
    is_away = isinstance(trouble, UnreachableError)
    raise typer.Exit(ExitCode.UNREACHABLE if is_away else ExitCode.USAGE)
