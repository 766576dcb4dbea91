"""The `flashsale` command: one file a command, and one place where errors become exit codes."""

from flashsale.cli.app import main

__all__ = ["main"]
