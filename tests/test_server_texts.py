"""What a server says is cut to a sane length before it becomes a text of ours, and steers no terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import exceptions

from narrowboat.driver.texts import LONGEST, cut
from narrowboat.dsn import Secret, Url
from narrowboat.errors import NarrowboatError
from narrowboat_consul import errors as consul
from narrowboat_consul.options import Agent
from narrowboat_consul.options import Options as ConsulOptions
from narrowboat_rabbitmq import errors as rabbitmq
from narrowboat_rabbitmq.options import Options as RabbitOptions
from narrowboat_rabbitmq.options import endpoint
from narrowboat_redis import errors as redis
from narrowboat_redis.connection import Connection
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.options import Options as RedisOptions
from narrowboat_redis.resp import ErrorReply

HUGE = "ERR \x1b[2J\u009b" + "x" * 100_000 + "geheim"
REDIS = RedisEndpoint.of(Url.parse("redis://:geheim@a"), RedisOptions())
CONSUL = Agent.of(Url.parse("consul://a"), ConsulOptions())
RABBIT = endpoint(Url.parse("amqp://a"), RabbitOptions())


@pytest.mark.parametrize(
    "error",
    [
        redis.translate(ErrorReply(HUGE), REDIS, doing="a ping"),
        redis.translate(ErrorReply("NOPERM " + HUGE), REDIS, doing="a ping"),
        redis.translate(OSError(HUGE), REDIS, doing="a ping"),
        consul.refused(500, HUGE, CONSUL),
        consul.refused(400, HUGE, CONSUL),
        rabbitmq.connection_error(exceptions.AMQPConnectionError(OSError(HUGE)), RABBIT, rabbitmq.Operation("a ping", 0.0)),
        rabbitmq.connection_error(exceptions.ConnectionClosedByBroker(320, HUGE), RABBIT, rabbitmq.Operation("a ping", 0.0)),
    ],
    ids=lambda error: f"{error.backend}-{type(error).__name__}",
)
def test_an_error_has_a_sane_length_and_no_control_characters(error: NarrowboatError) -> None:
    """Its text stands in logs and on terminals; a server may be broken, or hostile."""
    assert len(str(error)) < LONGEST + 500
    assert str(error).isprintable()
    assert "geheim" not in str(error)


def test_the_cause_of_a_long_error_is_cut_as_well() -> None:
    """A traceback shows it; and what is cut is no way around the password's mask."""
    found = redis.translate(ErrorReply("ERR geheim" + HUGE), REDIS, doing="a ping")
    assert len(str(found.__cause__)) < LONGEST + 50 and "geheim" not in str(found.__cause__)


@given(st.text(), st.integers(1, 50))
def test_any_text_comes_out_in_one_printable_line(text: str, longest: int) -> None:
    """Whole where it fits, or so much of it, and how much there was."""
    found = cut(text, longest)
    assert found.isprintable()
    if len(text) <= longest and text.isprintable() and text == " ".join(text.split()):
        assert found == text
    if len(" ".join(text.split())) > longest:
        assert found.endswith(f"... ({len(text)} characters)")


def test_a_login_that_cannot_be_sent_shows_no_password() -> None:
    """Frames have the command in their variables: it is hidden from the reporters of errors."""
    import socket
    import time

    from narrowboat.conformance.checks.leaks import raised, shown, texts
    from narrowboat.driver.endpoint import HostPort
    from narrowboat_redis.opening import log_in

    here, there = socket.socketpair()
    there.close()
    with here:
        connection = Connection(here, HostPort("localhost", 1), 1.0, 1 << 20)
        error = raised(lambda: log_in(connection, "default", Secret("Zq9Xk-S3cr3t"), time.monotonic() + 1.0))
    assert isinstance(error, OSError)
    assert shown("Zq9Xk-S3cr3t", texts(error)) == []
