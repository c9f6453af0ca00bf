"""An XNAT site and who asks there: from the environment, ~/.netrc or a prompt, and from there into no file, log or child process."""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click

from medgan.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Site:
    """An XNAT site and who asks there.

    Args:
        host: Its address, `https://xnat.example.org`, with the path XNAT lies under if there is one.
        user: Name, or the alias of a token.
        password: Password, or the secret of a token; in no text of ours.
        verify: Whether its certificate must be known.
    """

    host: str
    user: str
    password: str = field(repr=False)
    verify: bool = True


def site(environment: MutableMapping[str, str], *, host: str = "", user: str = "", ask: Callable[[str], str] | None = None) -> Site:
    """The site and credentials of XNAT_HOST, XNAT_USER and XNAT_PASS, as the Container Service sets them; else of ~/.netrc, else asked for.

    The password leaves the environment, so that no process started later inherits it.

    Args:
        environment: `os.environ`; XNAT_PASS is removed from it. XNAT_VERIFY is `false`, or a file of certificates to trust.
        host: Instead of XNAT_HOST.
        user: Instead of XNAT_USER.
        ask: Gets a password from a person at a terminal; None where there is none.

    Raises:
        ConfigError: No host, no credentials, or an address that is none.
    """
    host = (host or environment.get("XNAT_HOST", "")).strip().rstrip("/")
    user = (user or environment.get("XNAT_USER", "")).strip()
    password = environment.pop("XNAT_PASS", "")
    if not host:
        raise ConfigError("no XNAT site is named", fix="set XNAT_HOST (the Container Service does), or give --host where there is one")
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError("the address of the XNAT site is none", fix="like https://xnat.example.org")
    if parts.username or parts.password:
        raise ConfigError("the address of the XNAT site holds a user", fix="set XNAT_USER and XNAT_PASS instead")
    if not password:
        user, password = _from_netrc(parts.netloc, parts.hostname, user)
    if user and not password and ask:
        password = ask(user)
    if not user or not password:
        raise ConfigError("no user and password for the XNAT site", fix="set XNAT_USER and XNAT_PASS, or write them to ~/.netrc")
    return Site(host=host, user=user, password=password, verify=_verify(environment))


def _from_netrc(netloc: str, hostname: str, user: str) -> tuple[str, str]:
    """User and password of ~/.netrc (or $NETRC) for a host; the user as it was and no password where the file has none for them."""
    try:
        known = netrc.netrc(os.environ.get("NETRC") or str(Path.home() / ".netrc"))
    except (OSError, RuntimeError):
        return user, ""
    except netrc.NetrcParseError:
        # Its message quotes the word it does not understand, which may be the password.
        raise ConfigError("~/.netrc cannot be read", fix="correct it, or set XNAT_USER and XNAT_PASS") from None
    for name in (netloc, hostname):
        if (entry := known.hosts.get(name)) and entry[2] and user in ("", entry[0]):
            return entry[0], entry[2]
    return user, ""


def _verify(environment: MutableMapping[str, str]) -> bool:
    given = certificates(environment, "XNAT_VERIFY")
    if given is True:
        return True
    # requests prefers these over what a session was told.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        environment.pop(name, None)
    if given:
        environment["REQUESTS_CA_BUNDLE"] = given
    return bool(given)


def certificates(environment: Mapping[str, str], name: str) -> bool | str:
    """Whether a server's certificate must be known, or the file of certificates to trust, as the variable `name` says.

    Raises:
        ConfigError: It names no file.
    """
    given = environment.get(name, "").strip()
    if given.lower() in ("", "true", "yes", "1"):
        return True
    if given.lower() in ("false", "no", "0"):
        return False
    if not Path(given).is_file():
        raise ConfigError(f"{name} names no file", fix="false, or a file with the certificates to trust")
    return given


def ask(user: str) -> str:
    """A password from the terminal."""
    answer: str = click.prompt(f"Password of {user} on the XNAT site", hide_input=True, err=True)
    return answer
