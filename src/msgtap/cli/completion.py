"""``msgtap completion``: the script that teaches a shell to complete msgtap's options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


def script(command: click.Command, shell: str) -> str:
    """What ``shell`` is to evaluate."""
    complete = get_completion_class(shell)
    if complete is None:
        raise click.ClickException(f"no completion for {shell}; there is for {', '.join(SHELLS)}")
    return complete(command, {}, "msgtap", "_MSGTAP_COMPLETE").source()
