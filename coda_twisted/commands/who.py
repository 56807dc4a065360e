"""Who a command is to proxies and websites."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from urllib.parse import urlsplit

from coda_twisted.commands.console import Console, UsageMistake
from coda_twisted.credentials import PasswordCredentials
from coda_twisted.interfaces import ICredentialSource
from coda_twisted.sources import (
    EnvironmentCredentials,
    FileCredentials,
    NetrcCredentials,
    PatternCredentials,
    SourceChain,
)

__all__ = ["at_proxies", "at_the_website", "exposed_by"]

SECRET_FIELDS = ("authorization", "cookie", "proxy-authorization")


def at_the_website(
    arguments: argparse.Namespace, console: Console, environ: Mapping[str, str]
) -> ICredentialSource:
    """
    Find out who is meant by ``--user`` and its kin.

    That is for the URL's own scheme, host and port; a redirection leads it nowhere.

    :raises UsageMistake: A password is needed, and nobody is there to be asked.
    :raises ValueError: The URL, the name or the password cannot be meant.
    :raises OSError: The password file cannot be read.
    """
    parts = urlsplit(arguments.url)
    space = f"{parts.scheme}://{parts.netloc}"
    user, file = arguments.user, arguments.password_file
    given = _given(user, file, "", space, console, environ)
    netrc = NetrcCredentials(cleartext=arguments.cleartext_password)
    sources = [given, netrc if arguments.netrc else None]
    return SourceChain(*filter(None, sources))


def at_proxies(
    arguments: argparse.Namespace, console: Console, environ: Mapping[str, str]
) -> ICredentialSource | None:
    """
    Find out who is meant by ``--proxy-user`` and its kin, or by the environment.

    :returns: ``None`` where only the proxy's URL can tell.
    :raises UsageMistake: As :func:`at_the_website`, and what else it raises.
    """
    user, file = arguments.proxy_user, arguments.proxy_password_file
    given = _given(user, file, "proxy-", "proxy *", console, environ)
    if given is None and environ.get("CODA_PROXY_USER"):
        return EnvironmentCredentials(environ=environ)
    return given


def _given(
    user: str | None,
    file: str | None,
    kind: str,
    space: str,
    console: Console,
    environ: Mapping[str, str],
) -> ICredentialSource | None:
    """Make a source of what the options with *kind* in their names say."""
    if file is not None:
        with open(file, "rb"):  # now, rather than when somebody wants it
            pass
        return FileCredentials(file, user, spaces=[space])
    if user is None:
        return None
    variable = f"CODA_{kind.upper().replace('-', '_')}PASSWORD"
    password = environ.get(variable)
    if not password and console.ask is not None:
        password = console.ask(f"Password of {user} ({space}): ")
    if not password:
        raise UsageMistake(
            f"--{kind}user needs --{kind}password-file, or the environment variable "
            f"{variable}"
        )
    return PatternCredentials({space: PasswordCredentials(user, password)})


def exposed_by(arguments: argparse.Namespace) -> frozenset[str]:
    """Find the arguments that hold a secret, so that they can be wiped from ``ps``."""
    exposed = {
        each.argument
        for each in arguments.header
        if each.name.lower() in SECRET_FIELDS and each.value
    }
    if "@" in arguments.proxy:
        exposed.add(arguments.proxy)
    return frozenset(exposed)
