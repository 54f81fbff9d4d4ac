"""The command `leveret`: which subcommands there are, their flags, and how it ends.

Each subcommand's work is in a module of its own, imported when it is called, because `leveret start` must be fast. Whatever goes wrong
ends in one sentence on standard error and an exit code of `leveret.refusal`; a user never sees a traceback. The flags of `leveret start`
are the rows of `leveret.config.OPTIONS`.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from leveret import __version__
from leveret.config import OPTIONS, Folder, Option
from leveret.refusal import INTERRUPTED, OK, SOFTWARE, USAGE, Refusal

# What a wrong command line raises. Its module is `click` or a copy of click inside typer, depending on typer's version.
_UsageError: type[Exception] = next(parent for parent in typer.BadParameter.__mro__ if parent.__name__ == "ClickException")

app = typer.Typer(
    name="leveret",
    help="A RabbitMQ-compatible message broker (AMQP 0-9-1).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataDirFlag = Annotated[
    str | None, typer.Option("--data-dir", metavar="FOLDER", help="Data folder of the broker, if it was started with one.")
]
ConfigFlag = Annotated[str | None, typer.Option("--config", metavar="FILE", help="TOML file with options (leveret.toml).")]
TimeoutFlag = Annotated[float, typer.Option("--timeout", min=0.1, max=86400, metavar="SECONDS", help="Give up after this long.")]


def _start(config: str | None, ready_fd: int | None, **flags: str | None) -> None:
    """Start the broker in the foreground; Ctrl-C stops it, a second Ctrl-C at once."""
    from leveret.ctl.start import start

    raise typer.Exit(start(flags, os.environ, Path(config) if config else None, ready_fd))


def _flag(option: Option) -> inspect.Parameter:
    declared = typer.Option(
        option.flag,
        metavar=option.name.rpartition("_")[2].upper(),
        help=f"{option.help} [default: {option.default_text}; ${option.variable}]",
        show_default=False,
    )
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, declared])


def _with_flags(options: Sequence[Option]) -> None:
    """Give `_start` the signature that typer reads: its own two flags and one for each option."""
    ready_fd = typer.Option(
        "--ready-fd",
        min=3,
        metavar="NUMBER",
        help="File descriptor to which one line of JSON is written when the broker is ready: its ports, process id and folders.",
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("config", keyword, default=None, annotation=ConfigFlag),
        *(_flag(option) for option in options),
        inspect.Parameter("ready_fd", keyword, default=None, annotation=Annotated[int | None, ready_fd]),
    ]
    _start.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    _start.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


_with_flags(OPTIONS)
app.command("start")(_start)


@app.command()
def status(
    data_dir: DataDirFlag = None,
    config: ConfigFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
    top: Annotated[int, typer.Option("--top", min=0, max=500, help="Show this many queues and connections.")] = 20,
    timeout: TimeoutFlag = 10.0,
) -> str:
    """Show a running broker: its processes, queues and connections."""
    from leveret.ctl.status import status_text

    return status_text(_place(data_dir, config), as_json=as_json, top=top, timeout_s=timeout)


@app.command()
def stop(data_dir: DataDirFlag = None, config: ConfigFlag = None, timeout: TimeoutFlag = 60.0) -> str:
    """Stop a running broker and wait until it has ended."""
    from leveret.ctl.stop import stop_node

    return stop_node(_place(data_dir, config), timeout_s=timeout)


@app.command()
def backup(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Folder for the backup: a new one, or an empty one.")],
    data_dir: DataDirFlag = None,
    config: ConfigFlag = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, max=86400, metavar="SECONDS", help="Give up when copying one shard takes longer.")
    ] = 3600.0,
) -> str:
    """Copy a running broker's definitions and messages into a folder that `leveret start` takes."""
    from leveret.ctl.backup import backup_node

    return backup_node(_place(data_dir, config), _folder(directory), timeout_s=timeout)


DataDirArgument = Annotated[str, typer.Argument(metavar="DATA_DIR", help="Data folder of a broker that does not run, or a backup.")]


@app.command()
def verify(data_dir: DataDirArgument) -> str:
    """Check the data of a stopped broker, or a backup: every file by itself, and whether they belong together."""
    from leveret.ctl.verify import verify_data

    return verify_data(_folder(data_dir))


@app.command()
def compact(data_dir: DataDirArgument) -> str:
    """Give the disk back what a stopped broker's files no longer use; needs room for a copy of the largest."""
    from leveret.ctl.compact import compact_data

    return compact_data(_folder(data_dir))


@app.command()
def version() -> str:
    """Print the version."""
    return f"Leveret {__version__}\n"


# Its own flags, `--help` among them, are read by leveret.perf, which would cost the other commands their start.
@app.command(
    "perf",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
    help="Load a broker and measure it; `leveret perf --help` tells how.",
)
def perf(context: typer.Context) -> None:
    from leveret.perf.main import app as load_tool

    result = load_tool(args=list(context.args), prog_name="leveret perf", standalone_mode=False)
    raise typer.Exit(result if isinstance(result, int) else OK)


def _place(data_dir: str | None, config: str | None) -> Sequence[Path]:
    """Data folders in which the broker may be, most likely first."""
    from leveret.config import SYSTEM_DATA_DIR, load

    settings = load({"data_dir": data_dir}, _without_other_options(os.environ), Path(config) if config else None).settings
    told = data_dir is not None or config is not None or "LEVERET_DATA_DIR" in os.environ
    return [settings.data_dir] if told else [settings.data_dir, SYSTEM_DATA_DIR]


def _folder(text: str) -> Path:
    """The absolute path that an argument names."""
    try:
        return Folder().parse(text)
    except ValueError:
        raise Refusal(f"a folder's path is wanted, not {text!r}", USAGE) from None


def _without_other_options(environment: Mapping[str, str]) -> dict[str, str]:
    """A client needs to find the broker; a bad value meant for the broker must not stop it."""
    kept = {"LEVERET_DATA_DIR", "LEVERET_CONFIG"}
    return {name: value for name, value in environment.items() if not name.startswith("LEVERET_") or name in kept}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. Never returns, never shows a traceback."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        result: Any = app(args=arguments, prog_name="leveret", standalone_mode=False)
        if isinstance(result, str):
            sys.stdout.write(result)  # here and not in the command, because typer makes exit code 1 of a reader that has gone
        sys.stdout.flush()
        return result if isinstance(result, int) else OK
    except Refusal as refusal:
        return _say(refusal.sentence, refusal.exit_code)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())  # type: ignore[attr-defined]
            return USAGE
        return _say(f"{error.format_message()}\nTry `leveret --help`.", USAGE)  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (`leveret status | head`) has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK
    except Exception as error:
        if os.environ.get("LEVERET_DEBUG"):
            raise
        return _say(f"unexpected error: {type(error).__name__}: {error} (set LEVERET_DEBUG=1 for where)", SOFTWARE)


def _say(sentence: str, exit_code: int) -> int:
    print(f"leveret: {sentence}", file=sys.stderr)
    return exit_code
