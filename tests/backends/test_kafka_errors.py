"""Errors of the Kafka client as ours, and when a publish has failed."""

from __future__ import annotations

import ssl
import warnings

import pytest

from narrowboat.dsn import Url
from narrowboat.errors import (
    AccessDenied,
    Closed,
    ConfigurationError,
    Conflict,
    NotFound,
    PublishFailed,
    PublishUnknown,
    Unavailable,
)

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka.errors as client

    from narrowboat_kafka.client import Code, KafkaError, TopicPartition, Unconnected
    from narrowboat_kafka.errors import translate, unconnected, unpublished, unreadable
    from narrowboat_kafka.library.met import met as of_client
    from narrowboat_kafka.options import Options, endpoint


@pytest.mark.parametrize(
    ("met", "ours"),
    [
        (client.KafkaTimeoutError("late"), Unavailable),
        (client.NodeNotReadyError("1"), Unavailable),
        (client.RequestTimedOutError("after 4997 ms"), Unavailable),
        (client.TopicAuthorizationFailedError("orders"), AccessDenied),
        (client.GroupAuthorizationFailedError("orders"), AccessDenied),
        (client.SaslAuthenticationFailedError("no"), AccessDenied),
        (client.UnknownTopicOrPartitionError("orders"), NotFound),
        (client.InvalidTopicError("a_b"), Conflict),
        (client.InvalidReplicationFactorError("3"), ConfigurationError),
        (
            client.InvalidReplicationFactorError(
                "Unable to replicate the partition 1 time(s): All brokers are currently fenced."
            ),
            Unavailable,
        ),
        (client.InvalidSessionTimeoutError("1"), ConfigurationError),
        (RuntimeError("NetworkSelector closed!"), Closed),
        (OSError("gone"), Unavailable),
    ],
)
def test_errors_of_the_client_are_ours(met: Exception, ours: type[Exception]) -> None:
    raised = of_client(met) if isinstance(met, client.KafkaError) else met
    error = translate(raised, "publishing to 'orders'")
    assert type(error) is ours
    assert error.__cause__ is raised
    assert raised is met or raised.__cause__ is met
    assert "publishing to 'orders'" in str(error)
    assert str(met) in str(error) or ours is Closed


@pytest.mark.parametrize("kind", [client.KafkaTimeoutError, client.RequestTimedOutError])
def test_no_answer_in_time_has_one_number_whoever_waited_for_it(kind: type[Exception]) -> None:
    """The number is the same with each client."""
    assert of_client(kind("late")).code == Code.TIMED_OUT_HERE


@pytest.mark.parametrize(
    ("met", "left", "ours"),
    [
        (client.MessageSizeTooLargeError("big"), True, PublishFailed),
        (client.KafkaTimeoutError("late"), True, PublishUnknown),
        (client.KafkaTimeoutError("late"), False, PublishFailed),
        (client.NotEnoughReplicasAfterAppendError("one"), True, PublishUnknown),
        (client.TopicAuthorizationFailedError("orders"), True, AccessDenied),
    ],
)
def test_a_publish_has_failed_only_where_the_message_never_left(met: Exception, left: bool, ours: type[Exception]) -> None:
    error = unpublished(of_client(met), "id", "orders", left=left)
    assert type(error) is ours
    assert "orders" in str(error)
    assert str(met) in str(error)


@pytest.mark.parametrize("driver", ["", "+python", "+confluent"])
@pytest.mark.parametrize(
    ("scheme", "met", "advised"),
    [
        ("kafka", KafkaError(Code.SPEAKS_TLS, "a:9 speaks TLS"), "kafkas"),
        ("kafka", KafkaError(Code.UNREACHABLE, "the server closed the connection"), "kafkas"),
        ("kafkas", KafkaError(Code.TIMED_OUT_HERE, "no answer to a TLS handshake"), "kafka"),
        ("kafkas", ssl.SSLError(1, "WRONG_VERSION_NUMBER"), "kafka"),
    ],
)
def test_advice_to_take_tls_or_not_keeps_the_client_that_the_url_names(
    scheme: str, met: Exception, advised: str, driver: str
) -> None:
    """Who follows it gets the same client."""
    where = endpoint(Url.parse(f"{scheme}{driver}://a:9"), Options())
    error = unconnected(Unconnected(Code.UNREACHABLE, "no server", met=met), "connecting to a:9", where)
    assert f" {advised}{driver}://" in str(error)


@pytest.mark.parametrize("why", ["it is gone", "it is gone."])
def test_advice_follows_what_was_met_after_one_full_stop(why: str) -> None:
    """Whichever that ends with."""
    refused = client.PolicyViolationError(f"Response(error_message='{why}')")
    met = (OSError(why), of_client(client.TopicAuthorizationFailedError(why)), of_client(refused))
    texts = [translate(error, "declaring 'q'") for error in met]
    for error in (*texts, unreadable(of_client(OSError(why)), TopicPartition("t", 0), 0)):
        assert "it is gone. " in str(error)
