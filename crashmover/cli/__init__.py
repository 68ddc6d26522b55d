# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""The command line: one file a command, and here what they have in common."""

import io
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from crashmover import __version__
from crashmover.cli import console, signals
from crashmover.cli.console import say
from crashmover.cli.exit_codes import ExitCode, of_error
from crashmover.cli.options import Settings
from crashmover.errors import NO_THREAD, CrashMoverError, describe, masked

# Each is imported only when it is run; the help that lists them needs no more than this.
_COMMANDS = {
    "check": "Check whether stores have the crashes that another has.",
    "config": "Show the configured stores and queues.",
    "copy": "Copy crashes from one store to others.",
    "doctor": "Try stores and queues: whether they can be used.",
    "get": "Show a crash, or fetch parts of it.",
    "list": "List the crashes in a store, by day and id.",
    "queue-publish": "Publish crash ids to a queue.",
    "queue-pull": "Take crash ids from a queue, and print them.",
    "remove": "Remove crashes from a store, for good.",
    "save": "Save one crash from files.",
}

EPILOG = """\b
A store is a URI, a path with a slash, or a name from the configuration file:
  fs:///var/crashes?umask=027    ./crashes    /var/crashes    prod
  s3://bucket/prefix?region=us-west-2    gs://bucket/prefix
  postgresql://user@host:5432/database?schema=crashes

\b
A queue is a URI, or a name from the configuration file:
  pubsub://project/prefix    sqlite:///var/lib/crashmover/queue.db    prod

\b
Examples:
  crashmover save -d ./crashes --raw-crash raw.json --dump minidump.dmp
  crashmover get -s ./crashes 0bba929f-8721-460c-dead-a43c22071025
  crashmover copy -s s3://crashes -d /archive --since yesterday
  crashmover queue-publish -q pubsub://project/prefix --ids-from ids.txt

\b
Shell completion (bash; also zsh, fish):
  eval "$(_CRASHMOVER_COMPLETE=bash_source crashmover)"
"""


class CommandLine(click.Group):
    """Loads commands when they are run, and ends each with its exit code and one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        # A module that is called list would hide the builtin here.
        module = "listing" if cmd_name == "list" else cmd_name.replace("-", "_")
        command: click.Command = import_module(f"crashmover.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise click.exceptions.Exit(ExitCode.SIGNAL + signal.SIGPIPE) from None

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        typed = args[0] if args else kwargs.get("args")
        console.set_up(console.format_asked_for(sys.argv[1:] if typed is None else typed))
        _buffer_output()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # not every terminal can show every name
                stream.reconfigure(errors="backslashreplace")
        ending = signals.Unwinder()
        try:
            with signals.unwinding(ending):
                code = super().main(*args, **kwargs)
            if ending.number is not None:
                code = ExitCode.SIGNAL + ending.number
        except SystemExit:
            if ending.number is None:
                raise
            # All is cleaned up: wait neither for threads nor for a reader of the output.
            os._exit(ExitCode.SIGNAL + ending.number)
        except click.exceptions.Exit as end:
            code = end.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            if console.messages.as_json:
                say("crashmover: no command (crashmover --help tells more)")
            else:
                click.echo(error.ctx.get_help() if error.ctx else "", err=True)
            code = ExitCode.USAGE
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "crashmover"
            said = masked(error.format_message())  # it quotes what was typed
            say(f"{command}: {said} ({command} --help tells more)")
            code = error.exit_code
        except click.Abort:
            code = ExitCode.SIGNAL + signal.SIGINT
        except CrashMoverError as error:
            say(f"crashmover: {error}", crash_id=getattr(error, "crash_id", None))
            code = of_error(error)
        except OSError as error:
            say(f"crashmover: {error.filename or 'output'}: {error.strerror}")
            code = ExitCode.FAILED
            _drop_output()
        except Exception as error:
            if _is_for_want_of_threads(error):
                say(f"crashmover: {NO_THREAD}")
                sys.exit(_flushed(ExitCode.UNAVAILABLE))
            if not console.messages.as_json:  # a mistake of ours
                raise
            import traceback

            trace = "".join(traceback.format_exception(error))
            say(f"crashmover: {describe(error)}", traceback=trace)
            code = ExitCode.FAILED
        sys.exit(_flushed(int(code or 0)))


def _is_for_want_of_threads(error: Exception) -> bool:
    """Return True if Python, or a library in Python, could not start a thread."""
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


def _buffer_output() -> None:
    """Put a buffer where PYTHONUNBUFFERED has left none: without it, the interpreter passes
    over what a full disk, or a pipe whose reader leaves, did not take of a write."""
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        raw = open(sys.stdout.fileno(), "wb", closefd=False)
        sys.stdout = io.TextIOWrapper(raw, encoding=sys.stdout.encoding, line_buffering=True)


def _flushed(code: int) -> int:
    """Write what is still waiting to be written, and return the exit code.

    Were it left to the interpreter, a full disk or a reader that is gone would end in its own
    message and its own exit code.
    """
    try:
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        code = ExitCode.SIGNAL + signal.SIGPIPE
    except OSError as error:
        say(f"crashmover: output: {error.strerror}")
        code = code or ExitCode.FAILED
    _drop_output()
    return code


def _drop_output() -> None:
    """Let what still waits to be written go nowhere."""
    with suppress(OSError):  # there may be too many open files
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@click.command(
    cls=CommandLine,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)
@click.option(
    "--config",
    type=click.Path(),
    metavar="FILE",
    envvar="CRASHMOVER_CONFIG",
    show_envvar=True,
    help="File with named stores and queues; else config.toml in the platform's directory for"
    " configuration.",
)
@click.option(
    "-v",
    "--verbose",
    count=True,
    help="Say what is tried again, and how many crashes were in flight; twice: also what becomes"
    " of every crash.",
)
@click.option(
    "--quiet",
    is_flag=True,
    envvar="CRASHMOVER_QUIET",
    show_envvar=True,
    help="Say nothing on standard error unless something failed or is to be warned of.",
)
@click.option(
    "--log-format",
    type=click.Choice(console.FORMATS),
    default="text",
    show_default=True,
    envvar=console.FORMAT_VARIABLE,
    show_envvar=True,
    help="Lines for people, or a JSON object for each line, on standard error.",
)
@click.version_option(__version__, prog_name="crashmover")
@click.pass_context
def main(
    ctx: click.Context, config: str | None, verbose: int, quiet: bool, log_format: str
) -> None:
    """Move crash reports between stores: whole, verified and fast."""
    if verbose and quiet:
        if ctx.get_parameter_source("quiet") is ParameterSource.COMMANDLINE:
            raise click.UsageError("either --quiet or -v")
        quiet = False  # the environment's is for runs that say nothing else
    console.set_up(log_format, verbosity=verbose, quiet=quiet)
    ctx.obj = Settings(config)
