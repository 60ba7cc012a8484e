"""kafka-python has every name that the backend uses and the library does not promise; only `library/` uses such names."""

from __future__ import annotations

import ast
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import narrowboat_kafka
from narrowboat_kafka.library import DOCUMENTED, EITHER, NAMES

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.net.connection import KafkaConnection
    from kafka.net.manager import KafkaConnectionManager
    from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
    from kafka.producer.producer_batch import ProducerBatch
    from kafka.producer.sender import Sender
    from kafka.record import MemoryRecords, MemoryRecordsBuilder
    from kafka.structs import TopicPartition

    from narrowboat_kafka.library.connection import Connections
    from narrowboat_kafka.library.fetched import Fetched
    from narrowboat_kafka.library.loop import SharedLoop

PACKAGE = Path(narrowboat_kafka.__file__).parent
#: What the library promises.
PROMISED = {"kafka", "kafka.admin", "kafka.errors", "kafka.structs"}
LISTED = {*DOCUMENTED, *NAMES, *EITHER}
USED = [(owner, name) for names in (DOCUMENTED, NAMES) for owner, these in names.items() for name in these.split()]


def test_nothing_is_listed_twice() -> None:
    assert len(USED) == len(set(USED))
    assert len(USED) > 60


def test_no_name_is_added() -> None:
    """Their number may only fall: what is to be done with one more is done by a documented name, or below the library."""
    names = [name for these in NAMES.values() for name in these.split()]
    assert len(names) <= 54
    assert sum(name.startswith("_") for name in names) <= 14
    assert not any(name.startswith("_") for these in DOCUMENTED.values() for name in these.split())


def test_each_of_the_versions_has_what_it_is_asked_for() -> None:
    """Version 3.1 asks the loop for connections; 3.0 asks its manager."""
    has = {owner: all(hasattr(found(owner), name) for name in these.split()) for owner, these in EITHER.items() if there(owner)}
    assert has == (
        {"kafka.net.manager.KafkaConnectionManager": False, "kafka.net.backend.NetBackend": True}
        if there("kafka.net.backend.NetBackend")
        else {"kafka.net.manager.KafkaConnectionManager": True}
    )


def there(owner: str) -> bool:
    try:
        found(owner)
    except (ModuleNotFoundError, AttributeError):
        return False
    return True


@pytest.fixture(scope="module")
def objects() -> Iterator[dict[str, Any]]:
    """One of each that only has its names once it is made, as the library itself makes it. Nothing is connected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KafkaConnectionManager, "bootstrap", lambda *_, **__: None)
        patch.setattr(SharedLoop, "start", lambda *_: None)
        patch.setattr(Sender, "start", lambda *_: None)
        loop = SharedLoop()
        shared: dict[str, Any] = {"bootstrap_servers": "127.0.0.1:1", "kafka_client": Connections(loop)}
        client = shared["kafka_client"](bootstrap_servers="127.0.0.1:1")
        consumer = kafka.KafkaConsumer(group_id="g", api_version=(2, 8), **shared)
        producer = kafka.KafkaProducer(enable_idempotence=True, api_version=(2, 8), **shared)
        admin = kafka.KafkaAdminClient(**shared)
        batch = ProducerBatch(TopicPartition("t", 0), MemoryRecordsBuilder(2, 0, 1000))
        written = MemoryRecordsBuilder(2, 0, 1000)
        written.append(0, None, b"x", [])
        written.close()
        records = consumer._fetcher.PartitionRecords(0, TopicPartition("t", 0), MemoryRecords(b""))
        made = [client, client._manager, client.cluster, consumer, producer, admin, batch, records]
        made += [producer._sender, producer._accumulator, producer._transaction_manager]
        made += [consumer._fetcher, consumer._coordinator, consumer._subscription, CooperativeStickyAssignor()]
        made += [KafkaConnection(loop), loop.future()]
        made += [FutureRecordMetadata(FutureProduceResult(TopicPartition("t", 0)), 0, 0, 0, 0, 0, 0)]
        made += [MemoryRecords(bytes(written.buffer())).next_batch()]
        yield {f"{kind.__module__}.{kind.__qualname__}": each for each in made for kind in type(each).__mro__[:-1]}
        producer._closed = True
        loop.end(0)


def found(owner: str) -> Any:
    """A module, or a class in it."""
    parts = owner.split(".")
    for count in range(len(parts), 0, -1):
        try:
            place = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            place = getattr(place, name)
        return place
    raise ModuleNotFoundError(owner)


@pytest.mark.parametrize(("owner", "name"), USED, ids=[f"{owner}.{name}" for owner, name in USED])
def test_the_library_has_it(objects: dict[str, Any], owner: str, name: str) -> None:
    place = found(owner)
    made = objects.get(f"{place.__module__}.{place.__qualname__}") if isinstance(place, type) else None
    assert hasattr(place, name) or hasattr(made, name), f"{owner} of kafka-python {kafka.__version__} has no {name}"


# -- nobody else uses such a name -------------------------------------------------------------------------------------


def files(*, library: bool) -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if ("library" in path.parts) is library]


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules of kafka-python that are imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


@pytest.mark.parametrize("path", files(library=False), ids=lambda path: path.stem)
def test_the_rest_uses_no_private_name(path: Path) -> None:
    tree = ast.parse(path.read_text())
    private = {
        f"{ast.unparse(node)} in line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "other"))
        and node.attr not in ("_replace", "_asdict", "_fields", "_make")
        and not (node.attr.startswith("__") and node.attr.endswith("__"))
    }
    assert not private


def own(tree: ast.Module) -> set[str]:
    """The names that a file defines or assigns itself."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


@pytest.mark.parametrize("path", files(library=True), ids=lambda path: path.stem)
def test_what_the_library_folder_uses_is_listed(path: Path) -> None:
    """Each name with an underscore that it does not make itself, and each that it replaces."""
    tree = ast.parse(path.read_text())
    listed = {name for _, name in USED} | {name for these in EITHER.values() for name in these.split()}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    unlisted = {name for name in used - listed - own(tree) if not name.startswith("__") and name != "_make"}
    assert not unlisted
    modules = {each for each in imports(tree) if each.startswith("kafka.")} - PROMISED
    assert all(any(owner == each or owner.startswith(f"{each}.") for owner in LISTED) for each in modules), modules


def test_ours_has_what_the_library_asks_of_what_was_fetched(objects: dict[str, Any]) -> None:
    made = Fetched(0, TopicPartition("t", 0), MemoryRecords(b""), ear=None)  # type: ignore[arg-type]  # it tells nothing yet
    for name in NAMES["kafka.consumer.fetcher.Fetcher.PartitionRecords"].split():
        assert hasattr(made, name)
