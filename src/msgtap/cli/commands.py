"""What may be typed: the commands and their options. Each does its work in a module of its own."""

from __future__ import annotations

from importlib.metadata import version

import click

from msgtap.settings import SettingsError


class _Group(click.Group):
    """Errors that are the user's to mend are a line, never a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("msgtap"), prog_name="msgtap")
def msgtap() -> None:
    """See what your program's calls to an Anthropic-format Messages endpoint cost, and why they are slow.

    \b
    Try it, without an account:
      msgtap demo
    """


@msgtap.command()
@click.option("--exporter", "exporters", multiple=True, metavar="NAME", help="Send the demo's telemetry there too.")
def demo(exporters: tuple[str, ...]) -> None:
    """Call a stand-in endpoint on this machine with real clients, and show what msgtap saw.

    Nothing leaves the machine, unless you name an exporter.

    \b
    Examples:
      msgtap demo
      msgtap demo --exporter otlp      # and send it to your collector (OTEL_EXPORTER_OTLP_ENDPOINT)
    """
    try:
        from msgtap.cli.demo import run  # noqa: PLC0415  # it imports HTTP clients
    except ModuleNotFoundError as error:
        raise click.ClickException(f"the demo needs {error.name}: pip install 'msgtap[demo]'") from error
    run(exporters)
