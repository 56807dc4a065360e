"""Read the command line, run one command, say by the exit code what came of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from coda_twisted._version import __version__
from coda_twisted.commands import get
from coda_twisted.commands.console import Console, UsageMistake
from coda_twisted.commands.parser import Parser
from coda_twisted.service.argv import wipe

__all__ = ["main", "make_parser"]


def make_parser() -> Parser:
    """Make the parser of all commands."""
    parser = Parser(
        prog="python -m coda_twisted",
        description="HTTP through proxies and to websites that want to know who asks.",
    )
    parser.add_argument(
        "--version", action="version", version=f"coda_twisted {__version__}"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    get.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """
    Run a command, and exit.

    :param argv: Instead of the process's arguments.
    """
    parser = make_parser()
    arguments = parser.parse_strictly(sys.argv[1:] if argv is None else argv)
    console = Console.of_process()
    try:
        order = arguments.prepare(arguments, console, os.environ)
    except UsageMistake as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    wipe(order.exposed)
    globalLogBeginner.beginLoggingTo([_warnings(console.err)], redirectStandardIO=False)
    react(order.run)


def _warnings(file: TextIO) -> ILogObserver:
    """Let people see what the library warns of."""
    return FilteringLogObserver(
        textFileLogObserver(file), [LogLevelFilterPredicate(LogLevel.warn)]
    )
