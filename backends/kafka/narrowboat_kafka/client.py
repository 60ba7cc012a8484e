"""What this backend needs of a client of Kafka, as types, and nothing that one client alone has.

Two libraries stand behind these: `library/` with kafka-python, `confluent/` with confluent-kafka. The rest of the backend
(`member/`, `publishing/`, `topology/`, `feed.py`, `driver.py`) knows these types and no library. Who brings a third client
writes a class for each protocol here.

Whatever goes wrong is one `KafkaError` with the number that Kafka's own protocol gives it: both libraries have that number,
and nothing else in common. Everything that reads runs as coroutines on one `Loop`; producers and the administration are called
from any other thread, and block.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from narrowboat_kafka.format.records import Record
from narrowboat_kafka.format.stored import Stored

T = TypeVar("T")

#: Bytes of the largest message that is published again, to wait or as a dead letter: what goes with it makes it larger than
#: it was, and other programs' are larger than ours. The topics for these are made to take it, and so is the producer.
LARGEST = 8 * 1024 * 1024
#: What ends the metadata of each commit on the wire, and is no part of it. librdkafka writes it whether asked or not, and reads
#: beyond metadata that has none.
METADATA_END = "\0"
#: Seconds that what should take no time may take on a busy machine.
SOON = 0.1


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class Committed(NamedTuple):
    """What a group has committed of a partition."""

    offset: int  #: of the next record
    metadata: str  #: what the group noted beside it


class Topic(NamedTuple):
    """What the server says of a topic that is there."""

    name: str
    id: object  #: which topic of that name: one that was made anew has another; None where the server does not say
    partitions: tuple[int, ...]
    ready: bool  #: whether each of them has a leader


class Edge(enum.Enum):
    """Which end of a partition."""

    EARLIEST = -2
    LATEST = -1  #: the next offset that a reader of committed records would get


class Code(enum.IntEnum):
    """The kinds of errors that something here depends on. Below -100: met on our side of the wire, and no number of Kafka's."""

    TIMED_OUT_HERE = -101  #: no answer in time; the request may have been executed
    UNREACHABLE = -102  #: no connection, or it was lost
    SPEAKS_TLS = -103  #: the server's port is for TLS, and we came without
    TLS_FAILED = -104
    CODEC_MISSING = -105  #: what is compressed so cannot be read with what is installed here
    DAMAGED = -106  #: a batch fails its checksum
    NOT_A_MEMBER = -107  #: the group goes on without us
    NOT_SENT = -109  #: the connection is still being made, so nothing was sent: ask again in a moment
    PRODUCER_ENDED = -108  #: an error that was about another message ended the producer
    OTHER = -199
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER = 6  #: of a partition: it has just begun to be, or to be no more
    MESSAGE_TOO_LARGE = 10
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    INVALID_TOPIC = 17
    RECORD_LIST_TOO_LARGE = 18
    ILLEGAL_GENERATION = 22
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    TOPIC_AUTHORIZATION_FAILED = 29
    GROUP_AUTHORIZATION_FAILED = 30
    CLUSTER_AUTHORIZATION_FAILED = 31
    INVALID_TIMESTAMP = 32
    UNSUPPORTED_SASL_MECHANISM = 33
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    INVALID_CONFIG = 40
    POLICY_VIOLATION = 44
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    INVALID_PRODUCER_EPOCH = 47
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    SASL_AUTHENTICATION_FAILED = 58
    UNKNOWN_PRODUCER_ID = 59
    NON_EMPTY_GROUP = 68
    GROUP_ID_NOT_FOUND = 69
    INVALID_RECORD = 87
    PRODUCER_FENCED = 90
    UNKNOWN_TOPIC_ID = 100
    INVALID_RECORD_STATE = 121  #: the lock of a message is over
    SHARE_SESSION_NOT_FOUND = 122
    INVALID_SHARE_SESSION_EPOCH = 123


class KafkaError(Exception):
    """What a client met.

    Args:
        code: Kafka's number of it, one of `Code` where something here depends on it.
        text: what was said, without a secret and without what a request contained.
        retriable: whether the same may succeed a moment later.

    The library's own error is its `__cause__`.
    """

    def __init__(self, code: int, text: str, *, retriable: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.retriable = retriable


class Unconnected(KafkaError):
    """No first connection to the cluster was made.

    Args:
        code: as of any `KafkaError`.
        text: what was said of the whole.
        met: what the last try met, with its causes (a refused certificate is found in them); None where that is not known.
        turned_away: the server spoke with us, and hung up when user and password were shown to it.
    """

    def __init__(self, code: int, text: str, *, met: BaseException | None = None, turned_away: bool = False) -> None:
        super().__init__(code, text, retriable=True)
        self.met = met
        self.turned_away = turned_away


class Failed(NamedTuple):
    """Why a record has no receipt. `left`: it may have reached the server."""

    error: Exception
    left: bool


# -- the loop -----------------------------------------------------------------------------------------------------


class Future(Protocol[T]):
    """What coroutines of the loop await, and other threads are told of. Settled on the loop's thread."""

    def __await__(self) -> Generator[Any, Any, T]: ...
    def success(self, value: T) -> object:
        """Settle it with that."""

    def failure(self, error: BaseException) -> object:
        """Raise that in who awaits it."""


class Wakeup(Protocol):
    """What wakes a coroutine that waits for news, or for time to pass."""

    def __call__(self, seconds: float) -> Awaitable[object]:
        """Await it: for so many seconds, or until `notify` or `now` is called, which may have been before."""

    def notify(self) -> object:
        """From any thread."""

    def now(self) -> object:
        """On the loop's thread: without a turn of the loop in between."""


class Loop(Protocol):
    """One thread on which coroutines run. It outlasts what goes wrong in one of them."""

    def future(self) -> Future[Any]:
        """One that is not settled yet."""

    def new_wakeup(self) -> Wakeup:
        """One that nobody has notified yet."""

    def call_soon(self, work: Callable[..., object], *arguments: object) -> object:
        """Run a function, or a coroutine function, in the next turn. On the loop's thread."""

    def call_soon_threadsafe(self, work: Callable[..., object], *arguments: object) -> object:
        """The same from any thread. `RuntimeError` once it is closed."""

    def call_later(self, seconds: float, work: Callable[..., object]) -> object:
        """Run a function once so many seconds are over. On the loop's thread."""

    def sleep(self, seconds: float) -> Awaitable[object]:
        """Await it to let others run for so long; 0: for one turn."""

    def call(self, work: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """Run it there and wait for what it returns. Not on the loop's thread; `RuntimeError` once it is closed."""

    def call_until(self, until: float, work: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """The same, and wait until then (monotonic) at most: `KafkaError` TIMED_OUT_HERE. It goes on by itself."""


# -- one member of a group ----------------------------------------------------------------------------------------


class Ear(Protocol):
    """What a member hears, all of it on the loop."""

    @property
    def ending(self) -> bool:
        """Whether it is about to leave: it is to join nothing any more."""

    async def assigned(self, partitions: list[TopicPartition]) -> None:
        """These are ours from now on. Nothing is read of one before it was sought (`seek`) in here."""

    async def revoked(self, partitions: list[TopicPartition]) -> None:
        """These go to others when this returns; until then we may commit."""

    async def lost(self, partitions: list[TopicPartition]) -> None:
        """Others have these already."""

    def news(self) -> None:
        """Something was fetched, or is to be done."""

    def unreadable(self, tp: TopicPartition, offset: int, error: KafkaError) -> None:
        """A partition cannot be read on from that offset (-1: from where it was read to).

        It is paused in the next step, and tried again when it is resumed.
        """

    def passed(self, tp: TopicPartition, end: int) -> None:
        """A partition was read up to there, and there is no record at the end of that."""


class Membership(Protocol):
    """One member of one group. On the loop's thread, but for `close`."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for a share of these topics."""

    async def step(self, seconds: float) -> None:
        """Find the coordinator, join where that is due, and stay alive; `KafkaError` where that fails or takes longer.

        Called again and again, several times a second. A client that does all that by itself raises here what it met.
        """

    async def fetch(self, seconds: float) -> None:
        """Send for more, of all partitions that are not paused; `Ear.news` when there is some.

        `seconds`: how long a server keeps a fetch that finds nothing. A client that reads ahead by itself does nothing.
        """

    def read(self, count: int) -> Mapping[TopicPartition, Sequence[Stored]]:
        """About `count` records that were fetched, in the order of their offsets, by partition. Each is given once."""

    def unread(self) -> Collection[TopicPartition]:
        """Partitions of which something that was fetched lies here and was not read."""

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Read from that offset on; what was fetched of it before is dropped."""

    def pause(self, tp: TopicPartition) -> None:
        """Fetch no more of it."""

    def resume(self, tp: TopicPartition) -> None:
        """Fetch of it again."""

    async def committed(self, partitions: Collection[TopicPartition], seconds: float) -> dict[TopicPartition, Committed]:
        """What the group has committed of each; those of which it has nothing are not there."""

    async def commit(self, offsets: Mapping[TopicPartition, Committed], seconds: float) -> None:
        """Commit them, in one request, once. `KafkaError` NOT_A_MEMBER where the group goes on without us."""

    def assigned(self) -> Collection[TopicPartition]:
        """The partitions that the group has given us."""

    def partitions_of(self, topic: str) -> Collection[int]:
        """The numbers of a topic's partitions, as last heard; none where it is not known."""

    def topic_id(self, topic: str) -> object:
        """Which topic of that name it is, as last heard; see `Topic.id`."""

    async def hear_of_topics(self, seconds: float) -> None:
        """Ask about the topics, and wait so long for the answer at most. That one is not there is an answer, and no error."""

    def close(self, seconds: float) -> None:
        """Leave the group and close its connections, within so long. Not on the loop's thread; what it heard is over."""


# -- writing and administration, from any thread but the loop's ----------------------------------------------------


class Producer(Protocol):
    """Idempotent; nothing counts as stored before all replicas in step have it."""

    def publish(self, records: Sequence[Record], until: float) -> list[Failed | None]:
        """Store each; None for each that is stored. Returns by then (monotonic), with a true `left` for each other one."""

    @property
    def is_spent(self) -> bool:
        """Whether it may store nothing any more: the next message is to go through a new one."""

    def end(self, seconds: float) -> None:
        """Close it. What it still tries to send is given up after so long."""

    def disown(self) -> None:
        """In a forked child: its thread and its connections are the parent's."""


class Admin(Protocol):
    """Questions to the servers. Each raises `KafkaError`; one that nobody answers, TIMED_OUT_HERE or UNREACHABLE in time."""

    def ping(self) -> None:
        """Ask the cluster who it is."""

    def topics(self) -> list[str]:
        """The names of all topics that this user may see."""

    def describe(self, names: Sequence[str]) -> list[Topic]:
        """Those that are there."""

    def config(self, topic: str, keys: Sequence[str]) -> dict[str, str | None]:
        """Its settings; none where we may not look."""

    def create(self, name: str, partitions: int, replication: int, config: Mapping[str, str]) -> None:
        """Make a topic. `replication`: -1 for as the server is set up."""

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics."""

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Committed]:
        """What a group has committed of each; those of which it has nothing are not there."""

    def alter(self, group: str, offsets: Mapping[TopicPartition, Committed]) -> list[KafkaError]:
        """Commit for a group that nobody consumes; what went wrong with partitions of it."""

    def delete_groups(self, groups: Sequence[str]) -> list[KafkaError]:
        """Delete them; what went wrong with some."""

    async def offsets(self, partitions: Collection[TopicPartition], which: Edge, seconds: float) -> dict[TopicPartition, int]:
        """The earliest or latest offset of each. On the loop's thread."""

    async def metadata(self, names: Sequence[str]) -> list[Topic]:
        """As `describe`. On the loop's thread."""


class Client(Protocol):
    """All that one broker object has open.

    The class is called with `endpoint`, `options` and `timeout` (seconds of one operation), and raises `Unconnected`.
    """

    @property
    def loop(self) -> Loop:
        """Where its members run."""

    @property
    def admin(self) -> Admin:
        """Its administration."""

    def member(self, group: str, ear: Ear) -> Membership:
        """A member that has subscribed to nothing yet."""

    def producer(self) -> Producer:
        """A producer that has sent nothing yet."""

    def sharing(self) -> Any:
        """Share groups, as a `share.seam.Sharing`, whose types stand on these; None of a library that has none."""

    def close(self, within: float) -> None:
        """End what is still open and the loop, within so many seconds if the server does not answer."""

    def disown(self) -> None:
        """In a forked child: threads and connections are the parent's, and nothing here may touch them any more."""
