"""`narrowboat asyncapi`: what a worker takes, as a document. integration/test_asyncapi.py asks the official parser about it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import every_codec
import pytest

from narrowboat.working.asyncapi import document

DOCUMENT = document(every_codec.worker, title="Shop", version="1.4.0")


def payload(channel: str, message: str) -> Any:
    """The message of a channel, its references followed."""
    reference = DOCUMENT["channels"][channel]["messages"][message]["$ref"]
    found = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        return [each for key, value in part.items() for each in ([value] if key == "$ref" else references(value))]
    return [each for value in part for each in references(value)] if isinstance(part, list) else []


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def test_queues_and_topics_are_channels_and_handlers_are_operations() -> None:
    """A topic is one channel, whatever the number of its groups; a docstring is the summary."""
    operations = DOCUMENT["operations"]
    assert operations["ship"]["action"] == "receive"
    assert operations["ship"]["summary"] == "Ship what was sold."
    assert operations["ship"]["channel"] == {"$ref": "#/channels/orders"}
    assert operations["mail"]["channel"] == operations["count"]["channel"] == {"$ref": "#/channels/shipped"}
    assert operations["mail"]["x-narrowboat-group"] == "mail"
    assert DOCUMENT["channels"]["shipped"]["x-narrowboat-kind"] == "topic"
    assert DOCUMENT["channels"]["a_name_with_spaces"]["address"] == "a name with spaces"


def test_schedules_and_elections_are_not_in_it() -> None:
    assert not {"nightly", "lead"} & set(DOCUMENT["operations"])
    assert not [name for name in DOCUMENT["channels"] if name.startswith("schedule")]


def test_a_message_has_its_content_type_and_schema() -> None:
    order = payload("orders", "Order")
    assert order["contentType"] == "application/json"
    assert references(order["payload"]) == ["#/components/schemas/Order"]
    assert DOCUMENT["components"]["schemas"]["Order"]["required"] == ["id", "lines"]
    assert payload("plain", "plain") == {"name": "plain", "title": "plain"}
    assert payload("texts", "text")["payload"] == {"type": "string"}


def test_two_types_of_one_name_stay_two() -> None:
    """The definitions of the second one are under the name of its source."""
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Line"] != schemas["others.Line"]
    assert payload("others", "others.Order")["payload"] == {"$ref": "#/components/schemas/others.Order"}
    assert references(schemas["others.Order"]) == ["#/components/schemas/others.Line"]


def test_each_version_is_a_message() -> None:
    assert payload("versions", "OldOrder.1")["contentType"] == "application/json; version=1"
    assert payload("versions", "StructOrder.2")["contentType"] == "application/json; version=2"


def test_events_are_described_in_either_mode() -> None:
    """By headers and the data in binary mode, by the whole document in structured mode."""
    binary, structured = payload("events", "events.StructOrder"), payload("documents", "documents.StructOrder")
    assert binary["contentType"] == "application/json"
    assert set(binary["headers"]["required"]) == {"ce_id", "ce_source", "ce_specversion", "ce_type"}
    assert structured["contentType"] == "application/cloudevents+json"
    assert structured["payload"]["properties"]["data"] == binary["payload"]


@pytest.mark.parametrize("target", ["every_codec:worker", "every_codec:on_asyncio"])
def test_the_command_writes_it_and_asks_no_server(target: str) -> None:
    """The worker's URL leads nowhere."""
    done = subprocess.run(
        [sys.executable, "-m", "narrowboat", "asyncapi", target, "--title", "Shop", "--app-version", "1.4.0"],
        cwd=Path(__file__).parent,
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    written = json.loads(done.stdout)
    if target == "every_codec:worker":
        assert written == DOCUMENT
    assert written["asyncapi"] == "3.1.0"
    assert written["info"] == {"title": "Shop", "version": "1.4.0"}
    assert {"$ref": "#/channels/orders"} in [each["channel"] for each in written["operations"].values()]
