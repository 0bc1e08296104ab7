"""How the help of a command is laid out: paragraphs flow, indented lines stay as they are."""

from __future__ import annotations

import sqlite3
from inspect import cleandoc
from typing import Any

import click

from msgtap.settings import SettingsError
from msgtap_sqlite.place import StoreError

_AS_IT_IS = "\b\n"
"""Before a paragraph: click's sign not to wrap it."""


def _laid_out(text: str) -> str:
    return "\n\n".join(_AS_IT_IS + part if "\n  " in part else part for part in cleandoc(text).split("\n\n"))


class Page(click.Command):
    """A command with examples in its docstring."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # click's own
        super().__init__(*args, **kwargs)
        self.help = _laid_out(self.help or "")


class Book(click.Group):
    """The commands, in the order in which one meets them. Errors that are the user's to mend are a line."""

    command_class = Page

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # as above
        super().__init__(*args, **kwargs)
        self.help = _laid_out(self.help or "")

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's own
        """As they were defined."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (SettingsError, StoreError) as error:
            raise click.ClickException(str(error)) from error
        except sqlite3.Error as error:
            raise click.ClickException(f"the store cannot be read: {error}") from error
