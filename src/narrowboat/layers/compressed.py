"""Compresses bodies on their way out, and expands them on their way in.

    broker = narrowboat.broker("redis://cache?compress=zstd")
    broker = narrowboat.broker("redis://cache", wrap=Compress(Algorithm.ZSTD).wrap)  # the same

A body is compressed where that makes it smaller, and has a header (`narrowboat-compress: zstd`) then. It is expanded whatever
this process compresses with, up to what the backend takes as a body: what would become larger is refused as a bomb. Headers are
not compressed. It stands in front of a seal, as the URL puts it: what is sealed cannot be made smaller.
"""

from __future__ import annotations

import enum
import importlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.contract import Address, Broker, Delivery, Outgoing
from narrowboat.errors import ConfigurationError, NarrowboatError
from narrowboat.layers.changing import ChangingBroker, Unopened
from narrowboat.registry import how_to_install

HEADER = "narrowboat-compress"
#: Bytes below which a body is left as it is: the header would be longer than what is saved.
LEAST = 128
#: The window of zstd: 8 MiB. It is memory that a message makes its reader take.
_WINDOW_LOG = 23


class Algorithm(enum.StrEnum):
    """How bodies are compressed."""

    ZLIB = "zlib"  #: by the standard library
    ZSTD = "zstd"  #: faster and smaller: from Python 3.14 on, or with the extra `compress`


class Compress:
    """What bodies are compressed with. One serves any number of brokers, and of threads.

    `ConfigurationError` where the algorithm is not installed.
    """

    def __init__(self, algorithm: Algorithm | str = Algorithm.ZLIB) -> None:
        self.algorithm = Algorithm(algorithm)
        self.compress = _compressor(self.algorithm)

    def wrap(self, driver: Broker) -> Broker:
        """`driver` behind this: hand it over as `wrap=`."""
        return CompressedBroker(driver, self)


class CompressedBroker(ChangingBroker):
    """A message driver in front of `inner`."""

    REASON = "it cannot be expanded"

    def __init__(self, inner: Broker, compress: Compress) -> None:
        super().__init__(inner)
        self._name = str(compress.algorithm)
        self._compress = compress.compress
        self._most = inner.capabilities.body_max

    def outgoing(self, messages: Sequence[Outgoing]) -> list[Outgoing | NarrowboatError]:
        """Compressed, where that makes it smaller."""
        return [self._smaller(message) for message in messages]

    def incoming(self, source: Address, delivery: Delivery) -> Delivery:
        """Expanded, where its header says that it was compressed."""
        name = delivery.headers.get(HEADER)
        if name is None:
            return delivery
        body = expanded(name, delivery.body, self._most)
        return delivery._replace(body=body, headers={key: text for key, text in delivery.headers.items() if key != HEADER})

    def _smaller(self, message: Outgoing) -> Outgoing:
        body = message.body
        if len(body) < LEAST or HEADER in message.headers:  # a layer of this kind stands in front
            return message
        small = self._compress(body)
        if len(small) >= len(body):
            return message
        return message._replace(body=small, headers={**message.headers, HEADER: self._name})


def expanded(name: str, body: bytes, most: int) -> bytes:
    """`body`, which was compressed by the algorithm of that name. `Unopened` where it is not, or has more than `most` bytes."""
    if name not in [each.value for each in Algorithm]:
        raise Unopened("it is compressed by an algorithm that is not known here")
    try:
        found = _expand_zlib(body, most) if name == Algorithm.ZLIB else _expand_zstd(body, most)
    except ConfigurationError as error:
        raise Unopened(str(error)) from None
    except Exception as error:  # of each library another one
        raise Unopened(f"its {len(body)} bytes cannot be expanded by {name} ({type(error).__name__})") from None
    if found is None:
        raise Unopened(f"its {len(body)} bytes expand to more than {most}")
    return found


def _compressor(algorithm: Algorithm) -> Callable[[bytes], bytes]:
    if algorithm is Algorithm.ZLIB:
        return zlib.compress
    module, standard = _zstd()
    if standard:
        return lambda body: bytes(module.compress(body, options={module.CompressionParameter.window_log: _WINDOW_LOG}))
    parameters = module.ZstdCompressionParameters.from_level(3, window_log=_WINDOW_LOG)
    # A compressor of the package serves one thread, and a message at a time has nothing to gain from a kept one.
    return lambda body: bytes(module.ZstdCompressor(compression_params=parameters).compress(body))


def _expand_zlib(body: bytes, most: int) -> bytes | None:
    return _expand(zlib.decompressobj(), body, most)


def _expand_zstd(body: bytes, most: int) -> bytes | None:
    """None for what has more than `most` bytes."""
    module, standard = _zstd()
    if standard:
        options = {module.DecompressionParameter.window_log_max: _WINDOW_LOG}
        return _expand(module.ZstdDecompressor(options=options), body, most)
    if module.frame_content_size(body) > most:  # where a frame tells it, `decompress` takes that much memory at once
        return None
    made = module.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
    return bytes(made.decompress(body, max_output_size=most, allow_extra_data=False))


def _expand(reading: Any, body: bytes, most: int) -> bytes | None:
    found: bytes = reading.decompress(body, most + 1)
    if len(found) > most:
        return None
    if not reading.eof or reading.unused_data:
        raise ValueError
    return found


def _zstd() -> tuple[Any, bool]:
    """The module that there is, and whether it is the standard library's."""
    for name, standard in (("compression.zstd", True), ("zstandard", False)):
        try:
            return importlib.import_module(name), standard
        except ImportError:
            continue
    raise ConfigurationError(
        "zstd is not installed, and the standard library has it from Python 3.14 on: "
        + how_to_install("narrowboat", "compress")
    )
