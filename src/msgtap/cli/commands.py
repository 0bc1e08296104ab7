"""What may be typed: the commands and their options. Each does its work in a module of its own."""

from __future__ import annotations

import os
from datetime import datetime
from importlib.metadata import version
from typing import get_args

import click

from msgtap.cli import completion as shells
from msgtap.cli.filters import Moment, filters
from msgtap.cli.pages import Book
from msgtap_sqlite.reader import Dimension


@click.group(cls=Book, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("msgtap"), prog_name="msgtap")
def msgtap() -> None:
    """See what your program's calls to an Anthropic-format Messages endpoint cost, and why they are slow.

    Begin with one of these:
      msgtap run -- python app.py     # your program, as it is
      msgtap report --by session      # what its calls were
      msgtap tail                     # calls as they happen
      msgtap demo                     # no program at hand? this needs no account

    Calls are kept in one file on this machine: $MSGTAP_STORE, else ~/.local/state/msgtap/calls.db.
    """


@msgtap.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--service", metavar="NAME", help="Keep its calls under this name; sets OTEL_SERVICE_NAME.")
@click.option("--no-summary", is_flag=True, help="Say nothing at the end.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, service: str | None, no_summary: bool, command: tuple[str, ...]) -> None:  # noqa: FBT001  # click's way
    """Run a program and see its calls.

    The program is not changed: its input and output, its signals and its exit code are its own. Every Python process
    that it starts is observed too. At the end a summary of the calls goes to standard error. They are kept in the
    store of this machine, and go besides to where OTEL_EXPORTER_OTLP_ENDPOINT or MSGTAP_EXPORTERS say.

    Examples:
      msgtap run -- python app.py --verbose
      msgtap run -- -m pytest -q          # python -m …, by msgtap's own Python
      msgtap run --service claims -- uvicorn app:app --workers 2
      msgtap run -- celery -A tasks worker

    msgtap has to be installed in the environment of the program's Python.
    """
    if os.name != "posix":
        raise click.ClickException("run needs a POSIX system; on this one, have the program call msgtap.configure()")
    from msgtap.cli.observed import observed  # noqa: PLC0415  # as said

    observed(ctx, command, service, summary=not no_summary)


@msgtap.command()
@click.option(
    "--by", type=click.Choice(get_args(Dimension)), default="model", show_default=True, help="What a row stands for."
)
@click.option("--since", type=Moment(), help="Calls that ended since then: 90m, 24h, 7d, today, 2026-11-24T13:00.")
@click.option("--until", type=Moment(), help="Calls that ended before then.")
@filters
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N rows, 0: all. A table has 20.")
@click.option("--json", "form", flag_value="json", help="As JSON.")
@click.option("--csv", "form", flag_value="csv", help="As CSV.")
def report(
    by: Dimension, since: datetime | None, until: datetime | None, limit: int | None, form: str | None, **given: str
) -> None:
    """Add up calls, tokens, cost and latency.

    Examples:
      msgtap report                                  # by model
      msgtap report --by session --since today
      msgtap report --by hour --since 24h --model 'claude-opus-*'
      msgtap report --by error --run last
      msgtap report --by user --csv > users.csv

    JSON is {"by", "since", "until", "where", "rows": [row, …], "total": row}, CSV the rows. What is not known is null
    there, and empty here.

    Keys of a row:
      key                 model, service, …; of an hour 2026-11-24T13:00Z (UTC)
      calls               how many
      errors              how many of them failed
      tokens_input, tokens_cache_read, tokens_cache_write_5m,
      tokens_cache_write_1h, tokens_output, tokens_thinking
                          a token is in one of them only
      tokens_total        their sum
      cost_usd            USD, of those calls whose cost is known
      priced_calls        how many these are
      duration_p50_s, duration_p95_s, first_token_p50_s, first_token_p95_s
                          seconds, within 2.2 % of exact
    """
    from msgtap.cli.report import Question, show  # noqa: PLC0415  # what one command needs, the others do without

    show(Question(by=by, since=since, until=until, given=given, limit=limit), form)


@msgtap.command()
@click.option(
    "-n", "number", type=click.IntRange(min=0), metavar="N", default=10, help="Begin N calls ago.  [default: 10]"
)
@click.option("-f/-F", "--follow/--no-follow", default=True, help="Wait for more calls, or not.  [default: wait]")
@filters
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each call.")
def tail(number: int, follow: bool, as_json: bool, **given: str) -> None:  # noqa: FBT001  # click's way
    """Show calls as they happen, a line each.

    A line says when the call ended, its model, tokens in and out, time to the first token and to the end, outcome
    (#2: of the second attempt), cost, session and user. On a terminal it is cut to fit, in a pipe it is not.

    Examples:
      msgtap tail
      msgtap tail -n 50 --no-follow --error
      msgtap tail --session claim-44
      msgtap tail --json | jq 'select(.duration_s > 10)'

    JSON has these keys, with null for what is not known:
      id, ended_at, model, provider, service, client, run, session, user, status,
      error, ending (closed, cancelled or exit: by the program), stop_reason,
      attempt (0 is the first), duration_s, first_token_s, cost_usd, trace_id,
      span_id, and the tokens_… of msgtap report
    """
    from msgtap.cli.tail import tail as show  # noqa: PLC0415  # as above

    show(number, given, follow=follow, as_json=as_json)


@msgtap.command()
@click.option("--user", metavar="ID", help="Whose calls.")
@click.option("--session", metavar="ID", help="Which session's calls.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def erase(user: str | None, session: str | None, yes: bool) -> None:  # noqa: FBT001  # click's way
    """Erase one user's or one session's calls.

    The bytes are gone from the disk then. The sums by hour stay: they name no user and no session. What was exported
    elsewhere is not touched.

    Examples:
      msgtap erase --user ana
      msgtap erase --session claim-44 --yes
    """
    from msgtap.cli.erase import erase as erase_calls  # noqa: PLC0415  # as above

    if (user is None) == (session is None):
        raise click.UsageError("name one of them: --user ID or --session ID")
    erase_calls(user, session, sure=yes)


@msgtap.command()
@click.option("--exporter", "exporters", multiple=True, metavar="NAME", help="Send the demo's telemetry there too.")
def demo(exporters: tuple[str, ...]) -> None:
    """Show what msgtap sees, without an account.

    Real clients call a stand-in endpoint. Nothing leaves this machine, unless you name an exporter. The calls are kept
    as those of the service msgtap-demo.

    Examples:
      msgtap demo
      msgtap demo --exporter otlp   # to OTEL_EXPORTER_OTLP_ENDPOINT, too
    """
    try:
        from msgtap.cli.demo import run as run_demo  # noqa: PLC0415  # it imports HTTP clients
    except ModuleNotFoundError as error:
        raise click.ClickException(f"the demo needs {error.name}: pip install 'msgtap[demo]'") from error
    run_demo(exporters)


@msgtap.command()
@click.argument("shell", type=click.Choice(shells.SHELLS))
def completion(shell: str) -> None:
    """Teach a shell to complete what is typed here.

    Put it where your shell finds it:
      bash   echo 'eval "$(msgtap completion bash)"' >> ~/.bashrc
      zsh    echo 'eval "$(msgtap completion zsh)"' >> ~/.zshrc
      fish   msgtap completion fish > ~/.config/fish/completions/msgtap.fish
    """
    click.echo(shells.script(msgtap, shell))
