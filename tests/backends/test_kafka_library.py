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
from narrowboat_kafka.library import NAMES

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka
    from kafka.net.compat import KafkaNetClient
    from kafka.net.connection import KafkaConnection
    from kafka.net.inet import create_connection
    from kafka.net.manager import KafkaConnectionManager
    from kafka.net.selector import NetworkSelector, Task
    from kafka.net.transport import KafkaTCPTransport
    from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
    from kafka.producer.producer_batch import ProducerBatch
    from kafka.producer.sender import Sender
    from kafka.protocol.parser import KafkaProtocol
    from kafka.record import MemoryRecords, MemoryRecordsBuilder
    from kafka.structs import TopicPartition

PACKAGE = Path(narrowboat_kafka.__file__).parent
#: What the library promises.
PROMISED = {"kafka", "kafka.admin", "kafka.errors", "kafka.structs"}
USED = [(owner, name) for owner, names in NAMES.items() for name in names.split()]


def test_nothing_is_listed_twice() -> None:
    assert len(USED) == len(set(USED))
    assert len(USED) > 150


@pytest.fixture(scope="module")
def objects() -> Iterator[dict[str, Any]]:
    """One of each that only has its names once it is made, as the library itself makes it. Nothing is connected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KafkaConnectionManager, "bootstrap", lambda *_, **__: None)
        patch.setattr(NetworkSelector, "start", lambda *_: None)
        patch.setattr(Sender, "start", lambda *_: None)
        loop = NetworkSelector()
        shared: dict[str, Any] = {
            "bootstrap_servers": "127.0.0.1:1",
            "kafka_client": lambda **config: KafkaNetClient(net=loop, **config),
        }
        client = shared["kafka_client"](bootstrap_servers="127.0.0.1:1")
        consumer = kafka.KafkaConsumer(group_id="g", api_version=(2, 8), **shared)
        producer = kafka.KafkaProducer(enable_idempotence=True, api_version=(2, 8), **shared)
        admin = kafka.KafkaAdminClient(**shared)
        batch = ProducerBatch(TopicPartition("t", 0), MemoryRecordsBuilder(2, 0, 1000))
        written = MemoryRecordsBuilder(2, 0, 1000)
        written.append(0, None, b"x", [])
        written.close()
        records = consumer._fetcher.PartitionRecords(0, TopicPartition("t", 0), MemoryRecords(b""))

        async def nothing() -> None:
            """Nothing."""

        made = [loop, client, client._manager, client.cluster, consumer, producer, admin, batch, records]
        made += [producer._sender, producer._accumulator, producer._transaction_manager]
        made += [consumer._fetcher, consumer._coordinator, consumer._coordinator._generation, consumer._subscription]
        made += [KafkaConnection(loop), KafkaTCPTransport(loop, None), KafkaProtocol(), Task(nothing)]
        made += [FutureRecordMetadata(FutureProduceResult(TopicPartition("t", 0)), 0, 0, 0, 0, 0, 0)]
        made += [MemoryRecords(bytes(written.buffer())).next_batch()]
        yield {f"{type(each).__module__}.{type(each).__qualname__}": each for each in made}
        producer._closed = True
        loop.close()


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
    listed = {name for _, name in USED}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    unlisted = {name for name in used - listed - own(tree) if not name.startswith("__") and name != "_make"}
    assert not unlisted
    modules = {each for each in imports(tree) if each.startswith("kafka.")} - PROMISED
    assert all(any(owner == each or owner.startswith(f"{each}.") for owner in NAMES) for each in modules), modules


def test_what_makes_sockets_is_found_by_its_scheme() -> None:
    """The library takes our class of sockets by the scheme of `proxy_url`, its way to say how they are made."""
    from narrowboat_kafka.library import connection

    assert callable(create_connection)
    assert connection._Sockets.SCHEMES == ("narrowboat",)
    assert connection._Sockets in kafka.net.inet.KafkaNetSocket.__subclasses__()
