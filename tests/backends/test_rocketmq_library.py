"""RocketMQ: the classes made by protoc run on the installed protobuf, say what the protocol says, and meet nobody's."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

pytest.importorskip("grpc")

from narrowboat_rocketmq.library import calls, definition_pb2, service_pb2

APIS = Path(__file__).parents[2] / "tools" / "rocketmq-apis"


def test_every_message_and_field_of_the_published_files_is_there() -> None:
    """A change of the vendored files without a run of tools/rocketmq_stubs.py is seen."""
    for module, name in ((definition_pb2, "definition"), (service_pb2, "service")):
        text = (APIS / f"{name}.proto").read_text()
        messages = re.findall(r"^message (\w+)", text, re.MULTILINE)
        assert messages and set(messages) == set(module.DESCRIPTOR.message_types_by_name)
        for message in messages:
            body = re.search(rf"^message {message} \{{([^}}]*)\}}", text, re.MULTILINE)
            if body is not None and "{" not in body[1]:
                fields = re.findall(r"^[^/\n]*?(\w+) = (\d+);", body[1], re.MULTILINE)
                known = module.DESCRIPTOR.message_types_by_name[message].fields_by_name
                assert {known_name: field.number for known_name, field in known.items()} == {n: int(v) for n, v in fields}


def test_a_message_is_the_bytes_that_the_protocol_says() -> None:
    """The fields have their numbers: topic 1 with its name 2, body 4."""
    message = definition_pb2.Message(topic=calls.resource("t", ""), body=b"x")

    assert message.SerializeToString() == b"\x0a\x03\x12\x01t\x22\x01x"


def test_the_registry_of_protobuf_is_left_to_rocketmqs_own_client() -> None:
    """Two owners of one package in one process are an error of protobuf's, whoever comes second."""
    assert definition_pb2.DESCRIPTOR.package == "narrowboat.rocketmq.v2"


def test_grpc_was_told_of_forks() -> None:
    """It reads that when it is imported."""
    assert os.environ["GRPC_ENABLE_FORK_SUPPORT"]
