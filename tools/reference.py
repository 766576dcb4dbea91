"""`python -m tools.reference`: the documents' reference pages, written from the code.

    docs/reference/commands.md   what `flashsale --help` tells, of every command
    docs/reference/settings.md   every environment variable
    docs/reference/scenario.md   every key of a scenario's file

They are checked in, so that they can be read where they lie; a test holds them to the code.
"""

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import annotated_types
import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click

from flashsale import settings
from flashsale.cli.tree import tree
from flashsale.files import STORE_PASSWORDS
from flashsale.scenario.scenario import Scenario
from flashsale.scenario.table import Table
from flashsale.stack.settings import StackSettings

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
_SIGNS = {
    annotated_types.Ge: ("ge", "≥"),
    annotated_types.Gt: ("gt", ">"),
    annotated_types.Le: ("le", "≤"),
    annotated_types.Lt: ("lt", "<"),
}
_NOTE = "<!-- Written by `make docs` from the code: change it there. -->\n"


def pages() -> dict[str, str]:
    """The text of each page, by its file's name."""
    return {
        "commands.md": _commands(),
        "settings.md": _settings(),
        "scenario.md": _scenario(),
    }


# Commands ---------------------------------------------------------------------------------------


def _commands() -> str:
    command = typer.main.get_command(tree())
    context = typer.Context(command, info_name="flashsale")
    text = get_docs_for_click(obj=command, ctx=context, name="flashsale", title="Commands")
    # A usage line is a form and no command, so it is shown as text.
    text = re.sub(r"```console\n\$ (.*)\n```", r"```text\n\1\n```", text)
    text = text.replace("&#x27;", "'").replace("&quot;", '"').strip()
    return _NOTE + "\n".join(_linked(text.splitlines())) + "\n"


def _linked(lines: Sequence[str]) -> Iterator[str]:
    """The lines, with a link to each subcommand in place of its help, which is cut short there."""
    group, listed = "flashsale", False
    for line in lines:
        if heading := re.fullmatch(r"#{2,} `(.*)`", line):
            group = heading[1]
        if line.startswith("**"):
            listed = line == "**Commands**:"
        name = re.match(r"\* `([\w-]+)`:", line) if listed else None
        yield f"* [`{name[1]}`](#{group.replace(' ', '-')}-{name[1]})" if name else line


# Settings ---------------------------------------------------------------------------------------

_SETTINGS_HEAD = """\
# Settings

Every setting is an environment variable; an option of a command, where there is one, outranks it. A
value that cannot be is one line that names the variable, and exit 2. [Install](../install.md) tells
how the stores' URLs are written.
"""
_PLACES = """\
## Places

| variable | is |
|---|---|
| `FLASHSALE_SERVICES_DIR` | where `services install` unpacks; else `~/.cache/flashsale/services` |
"""
_SECRETS = """\
## Secrets as files

`…_FILE` names a file that holds the secret, so that it stands in no environment. White space around
it is no part of it. A URL without a password gets the one from its file.

| variable | is |
|---|---|
"""


def components() -> list[type[settings.Settings]]:
    """Every type of settings, in the order of the code; the stores' URLs are options."""
    own = [cls for cls in vars(settings).values() if isinstance(cls, type)]
    bases = (settings.Settings, settings.StoreSettings)
    chosen = [cls for cls in own if issubclass(cls, settings.Settings) and cls not in bases]
    return [*chosen, StackSettings]


def variable(component: type[settings.Settings], name: str) -> str:
    """The environment variable of one setting."""
    return f"{component.model_config.get('env_prefix', '')}{name}".upper()


def _settings() -> str:
    parts = [_NOTE + _SETTINGS_HEAD, _of_options(), _PLACES]
    for component in components():
        title = (component.__doc__ or "").strip().split("\n")[0].rstrip(".")
        rows = [
            f"| `{variable(component, name)}` | {_default(field)} | {_bounds(field)} "
            f"| {_cell(field.description or '')} |"
            for name, field in component.model_fields.items()
        ]
        heads = "| variable | default | bounds | meaning |\n|---|---|---|---|"
        parts.append("\n".join([f"## {title}\n", heads, *rows, ""]))
    parts.append(_SECRETS + "\n".join(_secret_files()) + "\n")
    return "\n".join(parts)


def _of_options() -> str:
    """The variables that stand for an option of several commands."""
    found: dict[str, tuple[str, str]] = {}
    for command in _leaves(typer.main.get_command(tree())):
        for parameter in command.params:
            name = getattr(parameter, "envvar", None)
            if isinstance(name, str):
                found.setdefault(name, (parameter.opts[0], parameter.help or ""))
    rows = [f"| `{name}` | `{opt}` | {_cell(text)} |" for name, (opt, text) in found.items()]
    heads = "| variable | option | meaning |\n|---|---|---|"
    return "\n".join(["## Options as variables\n", heads, *rows, ""])


def _leaves(command: Any) -> Iterator[Any]:
    if not hasattr(command, "list_commands"):
        yield command
        return
    context = command.context_class(command, info_name=command.name)
    for name in command.list_commands(context):
        yield from _leaves(command.get_command(context, name))


def _secret_files() -> Iterator[str]:
    for name in STORE_PASSWORDS:
        url = name.removesuffix("PASSWORD") + "URL"
        yield f"| `{name}_FILE` | the password of `{url}` |"
    for component in components():
        for name, field in component.model_fields.items():
            if field.annotation is SecretStr:
                whole = variable(component, name)
                yield f"| `{whole}_FILE` | what `{whole}` would be |"


# Scenarios --------------------------------------------------------------------------------------

_SCENARIO_HEAD = """\
# Keys of a scenario

Every key of a scenario's file. [Scenarios](../scenarios.md) shows them at work; a wrong one is one
line that names it and what was expected, and exit 2. Tables of the same kind are told once: every
step of `[target]` has the keys of `[target.buy]`.
"""


def _scenario() -> str:
    tables = [
        f"## {_title(path)}\n\n{_keys(table)}" for path, table in _tables("", Scenario, set())
    ]
    return "\n".join([_NOTE + _SCENARIO_HEAD, *tables])


def _title(path: str) -> str:
    return f"`[{path}]`" if path else "At the top"


def _tables(
    path: str, table: type[BaseModel], seen: set[type[BaseModel]]
) -> Iterator[tuple[str, type[BaseModel]]]:
    """Each kind of table where it first stands."""
    seen.add(table)
    yield path, table
    for name, field in table.model_fields.items():
        for part in _kinds(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in seen:
                key = field.alias or name
                key = f"{path}.{key}" if path else key
                is_list = get_origin(field.annotation) is tuple
                yield from _tables(f"[{key}]" if is_list else key, part, seen)


def _keys(table: type[BaseModel]) -> str:
    rows = [
        f"| `{field.alias or name}` | {_values(field)} | {_default(field)} | {_bounds(field)} "
        f"| {_cell(field.description or '')} |"
        for name, field in table.model_fields.items()
    ]
    heads = "| key | value | default | bounds | meaning |\n|---|---|---|---|---|"
    return "\n".join([heads, *rows, ""])


_PLAIN = {int: "whole number", float: "number", str: "text"}


def _values(field: FieldInfo) -> str:
    """What may stand there, in TOML's words."""
    annotation: Any = field.annotation
    kinds = [kind for kind in _kinds(annotation) if kind is not NoneType]
    for kind in kinds:
        if get_origin(kind) is Literal:
            return " or ".join(f"`{_toml(value)}`" for value in get_args(kind))
    if get_origin(annotation) is tuple and str in kinds:
        return "list of text"
    return _PLAIN.get(annotation) or next((_PLAIN[k] for k in kinds if k in _PLAIN), "table")


def _kinds(annotation: Any) -> Iterator[Any]:
    """An annotation and all that it is made of, but for what tables are made of."""
    yield annotation
    if get_origin(annotation) not in (Literal, dict):
        for part in get_args(annotation):
            yield from _kinds(part)


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


# Cells ------------------------------------------------------------------------------------------


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "" if field.default_factory else "required"
    if value is None or value in ("", (), {}) or isinstance(value, SecretStr | Table):
        return ""
    if any(isinstance(rule, annotated_types.Ge) and value < rule.ge for rule in field.metadata):
        return ""  # not a value that could be given
    if isinstance(value, Enum | bool):
        return f"`{str(value).lower()}`"
    return f"`{_toml(value)}`" if isinstance(value, str) else f"{value:,}"


def _bounds(field: FieldInfo) -> str:
    said = []
    for item in field.metadata:
        if type(item) in _SIGNS:
            name, sign = _SIGNS[type(item)]
            said.append(f"{sign} {getattr(item, name):,}")
    return ", ".join(said)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Write what differs."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        place = FOLDER / name
        if not place.exists() or place.read_text(encoding="utf-8") != text:
            place.write_text(text, encoding="utf-8")
            print(place)


if __name__ == "__main__":
    main()
