# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Something that speaks as much of PostgreSQL's protocol as it takes to break off."""

import datetime as dt
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Script = Callable[[socket.socket], None]
"""What is said to a client that has connected; then the connection is closed."""


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


READY = b"".join(
    (
        _message(b"R", struct.pack("!i", 0)),  # no password is needed
        _message(b"S", b"client_encoding\0UTF8\0"),
        _message(b"Z", b"I"),
    )
)


def fatal(code: str, text: str) -> bytes:
    """What a server says before it closes a connection."""
    fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": text}
    body = b"".join(f"{name}{value}\0".encode() for name, value in fields.items())
    return _message(b"E", body + b"\0")


def listen(client: socket.socket) -> None:
    """Take what the client says, whatever it is."""
    client.recv(1 << 16)


@contextmanager
def stub(script: Script) -> Iterator[dict[str, str]]:
    """Run it, and give libpq's parameters for it."""

    def serve() -> None:
        while True:
            client, _ = server.accept()
            with client, suppress(OSError):
                if client.getpeername() == bell.getsockname():
                    return
                client.settimeout(10)
                script(client)

    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as bell:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            port = server.getsockname()[1]
            yield {"host": "127.0.0.1", "port": str(port), "user": "me", "dbname": "crashes"}
        finally:
            bell.connect(server.getsockname())
            thread.join()


def under_tls(certificate: Path, script: Script) -> Script:
    """Do the same under TLS, and end it without a word, as who is killed does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def wrapped(client: socket.socket) -> None:
        agree_to_tls(client)
        with context.wrap_socket(client.dup(), server_side=True) as secret:
            script(secret)
            os.close(secret.detach())

    return wrapped


def agree_to_tls(client: socket.socket) -> None:
    """Answer the question whether it will be TLS."""
    listen(client)
    client.sendall(b"S")


def make_certificate(path: Path) -> Path:
    """Write a key and a certificate, which nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - day).not_valid_after(now + day)
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(pem)
    path.write_bytes(key.private_bytes(pem, *plain) + certificate)
    return path
