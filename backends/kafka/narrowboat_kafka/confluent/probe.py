"""What one of the servers says to who comes by a plain socket: asked where the library could not connect, for the reason.

It makes one connection, shakes hands where the URL asks for TLS, says what a client of Kafka says first, and closes it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time

from narrowboat.driver.endpoint import Endpoint
from narrowboat_kafka.client import Code, KafkaError
from narrowboat_kafka.options import Options

#: Which versions it speaks: key 18, version 0, correlation 1, no client id.
_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
#: How an alert of TLS begins: what a TLS port says to who speaks without.
_ALERT = b"\x15\x03"


def probe(endpoint: Endpoint, options: Options, seconds: float) -> Exception | None:
    """What the first server that says something meets; None where all went well."""
    until = time.monotonic() + seconds
    met: Exception | None = None
    for host in endpoint.hosts:
        try:
            _ask(endpoint, options, host.host, host.port, max(0.1, until - time.monotonic()))
            return None
        except TimeoutError:
            met = met or KafkaError(Code.TIMED_OUT_HERE, f"{host} did not answer in time{_handshake(endpoint)}")
        except ConnectionRefusedError as error:
            met = met or error
        except (OSError, KafkaError) as error:
            return error
    return met


def _handshake(endpoint: Endpoint) -> str:
    return " to a TLS handshake" if endpoint.tls else ""


def _ask(endpoint: Endpoint, options: Options, host: str, port: int, seconds: float) -> None:
    with contextlib.ExitStack() as stack:
        line: socket.socket = stack.enter_context(socket.create_connection((host, port), seconds))
        if endpoint.tls:
            context = options.context(backend=endpoint.scheme)
            line = stack.enter_context(context.wrap_socket(line, server_hostname=host))
        line.sendall(_VERSIONS)
        said = line.recv(5)
        if said.startswith(_ALERT):
            raise KafkaError(Code.SPEAKS_TLS, f"{host}:{port} speaks TLS")
        if not said:
            raise KafkaError(Code.UNREACHABLE, "the server closed the connection")
