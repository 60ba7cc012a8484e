"""What a client of `narrowboat serve` tells its caller: who was not reached, who it was not, and what is unknown."""

from __future__ import annotations

import socket

from narrowboat.driver.texts import cut
from narrowboat.errors import ConfigurationError, NarrowboatError, Unavailable
from narrowboat_zeromq.options import SCHEME, SECURE

_START = "Start one there, such as `narrowboat serve sqlite:///shop.db --bind tcp://127.0.0.1:5555`, or correct the URL."


class Forgotten(Unavailable):
    """The server knows no such feed of ours any more. Nothing was done: it is opened again, and asked again."""


def unreached(where: str, host: str, port: int, seconds: float) -> Unavailable:
    """No connection was made. One more look at the port says why, where the socket only says that it failed."""
    try:
        socket.create_connection((host, port), min(1.0, seconds)).close()
        why = "the port takes connections, and ended ours before it had said who it is; with zmqs://, look at ?server_key="
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
    return Unavailable(
        f"{where}: no narrowboat serve was reached ({why}); nothing was sent. {_START}", backend=SCHEME, sent=False
    )


def silent(where: str, seconds: float) -> Unavailable:
    """There is a connection, and no greeting was answered on it."""
    return Unavailable(
        f"{where}: the connection stands, and nobody answered our greeting within {seconds:g} s; nothing was sent. Either a "
        f"narrowboat serve is stopped or busy there, or another program has that port. {_START}",
        backend=SCHEME,
        sent=False,
    )


def no_zmtp(where: str, secure: bool) -> ConfigurationError:
    """Whoever is there spoke otherwise: no ZeroMQ, or one with the other security."""
    advice = (
        f"write {SCHEME}:// for a server without keys, and look whether ?server_key= is the key of this server"
        if secure
        else f"write {SECURE}:// with ?server_key= and &key= for a server that has keys"
    )
    return ConfigurationError(
        f"{where}: what listens there is no narrowboat serve that speaks as this URL does. If it is one, {advice}; if it is "
        "another program, correct the port.",
        backend=SCHEME,
    )


def denied(where: str, key: str) -> str:
    """The text where the server does not know our key."""
    return (
        f"{where}: the server knows no client with our public key {key}. Add it to the file of the server's --clients and "
        "send it SIGHUP, or name another key with ?key=."
    )


def greeted_wrongly(where: str, found: object) -> ConfigurationError:
    """A ZeroMQ peer that is not ours answered the greeting with something else."""
    return ConfigurationError(
        f"{where}: what listens there answered our greeting with {cut(found, 80)}, and is no narrowboat serve. "
        "Correct the port.",
        backend=SCHEME,
    )


def unanswered(where: str, what: str, seconds: float) -> Unavailable:
    """A request was sent, and no answer came."""
    return Unavailable(
        f"{where}: no answer to {what} within {seconds:g} s; it may or may not have been done. It may be repeated.",
        backend=SCHEME,
    )


def not_sent(where: str, what: str, seconds: float) -> Unavailable:
    """A request never left."""
    return Unavailable(
        f"{where}: {what} could not be sent within {seconds:g} s, so nothing was done. It may be repeated.",
        backend=SCHEME,
        sent=False,
    )


def broken(where: str, what: str, why: str) -> Unavailable:
    """The connection ended while a request was out."""
    return Unavailable(
        f"{where}: {why} before {what} was answered; it may or may not have been done. It may be repeated.", backend=SCHEME
    )


def fresh(error: NarrowboatError) -> NarrowboatError:
    """The same error for one more caller: an exception that several threads raise collects all their frames."""
    made = error.__class__.__new__(error.__class__)
    made.args = error.args
    made.__dict__.update(error.__dict__)
    return made
