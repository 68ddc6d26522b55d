# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""ConnectionContext: channels to Pub/Sub, or to its emulator."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import grpc
from google.auth.exceptions import GoogleAuthError

from crashmover.errors import NO_THREAD, InvalidURI, QueueError, QueueUnavailable
from crashmover.pool import possible_threads
from crashmover.proxies import Proxy, proxy_for, with_proxy

logger = logging.getLogger(__name__)

EMULATOR = "PUBSUB_EMULATOR_HOST"

_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>[0-9]{1,5})", re.ASCII)
_THREADS = 8
"""gRPC starts six with a channel (grpcio 1.85), and more as it needs them."""

_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

_SERVICE = "pubsub.googleapis.com:443"
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXIES = ("no_grpc_proxy", "no_proxy")

_PASSING = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}


class ConnectionContext:
    """Connects when it is first used: with the application default credentials, or without
    any to the emulator that the environment names."""

    def __init__(self) -> None:
        self._transports: dict[Any, Any] = {}
        self._is_announced = False
        self._lock = Lock()

    def transport(self, kind: Any, uri: str) -> Any:
        """Return the calls about topics, or about subscriptions.

        :param kind: `PublisherGrpcTransport` or `SubscriberGrpcTransport`
        :raises QueueError: there are no credentials
        """
        with self._lock:
            if kind not in self._transports:
                _require_threads(uri)
                emulator = emulator_address()
                if emulator and not self._is_announced:
                    self._is_announced = True
                    logger.warning("%s is set: using the emulator at %s", EMULATOR, emulator)
                try:
                    self._transports[kind] = (
                        kind(channel=grpc.insecure_channel(emulator, _UNLIMITED))
                        if emulator
                        else kind()
                    )
                except GoogleAuthError as error:
                    raise QueueError(f"{uri}: no credentials: {_line(error)}") from error
            return self._transports[kind]

    def close(self) -> None:
        with self._lock:
            for transport in self._transports.values():
                transport.close()
            self._transports.clear()


def emulator_address() -> str | None:
    """Return the address of the emulator that the environment names, if any.

    :raises InvalidURI: it is not HOST:PORT
    """
    address = os.environ.get(EMULATOR)
    if not address:
        return None
    match = _ADDRESS.fullmatch(address)
    if not match or not 0 < int(match["port"]) < 65536:
        raise InvalidURI(f"{EMULATOR} must be HOST:PORT, such as 127.0.0.1:8085, without a scheme")
    return address


def _require_threads(uri: str) -> None:
    """Make sure that gRPC can start its threads: where it cannot, it aborts the process.

    :raises QueueUnavailable: it cannot
    """
    if possible_threads(_THREADS) < _THREADS:
        raise QueueUnavailable(f"{uri}: {NO_THREAD}")


def _proxy() -> Proxy | None:
    """Return the proxy that gRPC goes through.

    Source of the rule: "gRPC environment variables"; other spellings do not count for gRPC.
    """
    target = emulator_address() or _SERVICE
    known = {name: os.environ[name] for name in _PROXIES + _NO_PROXIES if name in os.environ}
    return proxy_for(f"http://{target}", known, variables=_PROXIES, exceptions=_NO_PROXIES)


@contextmanager
def translated(uri: str, name: str) -> Iterator[None]:
    """Translate what gRPC raises.

    :param name: of the topic or subscription that it is about
    """
    try:
        yield
    except grpc.FutureCancelledError as error:
        raise QueueUnavailable(f"{uri}: the call was cancelled") from error
    except grpc.RpcError as error:
        code = error.code()
        if code is grpc.StatusCode.NOT_FOUND:
            raise QueueError(f"{uri}: there is no {name}; --create makes it") from error
        if code in _PASSING:
            reason = with_proxy(f"does not answer: {code.name}", _proxy())
            raise QueueUnavailable(f"{uri}: {short(name)}: {reason}") from error
        details = _line(error.details())
        raise QueueError(f"{uri}: {short(name)}: {code.name}: {details}") from error
    except GoogleAuthError as error:
        raise QueueError(f"{uri}: {_line(error)}") from error


def code_of(error: QueueError) -> object:
    """Return gRPC's code for what went wrong, if it came from there."""
    cause = error.__cause__
    return cause.code() if isinstance(cause, grpc.RpcError) else None


def short(name: str) -> str:
    """Return the name of a topic or subscription without that of its project."""
    return name.rpartition("/")[2]


def _line(text: object) -> str:
    return " ".join(str(text).split())[:200]
