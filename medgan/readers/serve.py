"""The web application on a port of this machine, until somebody stops it."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
from collections.abc import Callable

import uvicorn

from medgan.errors import ConfigError
from medgan.readers.app import make_app
from medgan.readers.store import Store
from medgan.readers.study import Study

LOOPBACK = ("127.0.0.1", "localhost")


def serve(study: Study, database: str, *, host: str, port: int, url: str, started: Callable[[str, str], None]) -> None:
    """Serve a study until SIGINT or SIGTERM; requests that have begun are answered.

    Args:
        study: What is shown.
        database: Where answers go (`store.Store`).
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        url: What readers type, where it is not the address itself: that of a reverse proxy, or of this machine's name.
        started: Called with the address and the administrator's link when the port is open.

    Raises:
        ConfigError: The port is taken or not allowed, or readers could not reach the address.
        InputError, DataError: As `Store`.
    """
    if not url and not is_loopback(host):
        raise ConfigError("--host lets other machines in, and links need the name under which they find this one", fix="--url https://...")
    if url and not url.rstrip("/").startswith(("http://", "https://")):
        raise ConfigError("--url is no address", fix="--url https://readers.example.org")
    listening = opened(host, port)
    try:
        site = url.rstrip("/") or f"http://{host}:{listening.getsockname()[1]}"
        token = secrets.token_urlsafe(24)
        store = Store(database, study.id)
        try:
            app = make_app(study, store, url=site, admin_token=token)
            # No access log: addresses of invitations are secrets, and those of machines are people's.
            config = uvicorn.Config(
                app, log_config=None, access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=5
            )
            _Server(config, lambda: started(site, f"{site}/admin/i/{token}")).run(sockets=[listening])
        finally:
            store.close()
    finally:
        listening.close()


class _Server(uvicorn.Server):
    """Says when it answers, and signals end it: not before, or a Ctrl-C right after the word could be lost where the shell ignores them."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self.say = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.say()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host in LOOPBACK or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def opened(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: The port is taken or not allowed, or the address is none of this machine's.
    """
    try:
        return socket.create_server((host, port), backlog=512)
    except OverflowError:
        raise ConfigError("--port goes from 0 to 65535") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is in use", fix=f"--port {port + 1 if port < 65535 else 8000}") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ConfigError(f"port {port} needs rights of root", fix="--port 8000, and a reverse proxy before it") from None
        raise ConfigError("--host is no address of this machine", fix="--host 127.0.0.1") from None
