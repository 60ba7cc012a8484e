"""What the programs that publish have compressed, unpacked again, up to a bound: a kilobyte may mean gigabytes.

kafka-python unpacks whatever it is. This asks the same libraries for no more than is wanted.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from kafka.errors import UnsupportedCodecError

#: Bytes that one batch may unpack to, and records that it may have. Programs gather a megabyte, or some ten thousand.
BYTES_MAX, RECORDS_MAX = 64 * 1024 * 1024, 500_000
#: How the blocks of Java's snappy begin, and how much of that there is.
_XERIAL, _XERIAL_SIZE = b"\x82SNAPPY\x00", 16


class TooMuch(ValueError):
    """It would be more than is taken."""


def unpacked(kind: int, data: bytes, most: int = BYTES_MAX) -> bytes:
    """The records of a batch, which says that they are compressed so. `UnsupportedCodecError` where its library is not here.

    Whatever the libraries raise comes through, and `TooMuch`.
    """
    if not kind:
        return data
    if kind not in _CODECS:
        raise UnsupportedCodecError(f"Unrecognized compression type: {kind}")
    name, codec = _CODECS[kind]
    try:
        found = codec(data, most)
    except ImportError as error:
        raise UnsupportedCodecError(f"Libraries for {name} compression codec not found") from error
    if len(found) > most:
        raise TooMuch(f"more than {most} bytes")
    return found


def _gzip(data: bytes, most: int) -> bytes:
    packed = zlib.decompressobj(zlib.MAX_WBITS | 16)
    found = packed.decompress(data, most + 1)
    if not packed.eof and len(found) <= most:
        raise ValueError("cut off")
    return found


def _zstd(data: bytes, most: int) -> bytes:
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        return bytes(reader.read(most + 1))


def _lz4(data: bytes, most: int) -> bytes:
    import lz4.frame

    return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=most + 1))


def _snappy(data: bytes, most: int) -> bytes:
    import snappy

    if not data.startswith(_XERIAL):
        return bytes(snappy.decompress(_small(data, most)))
    found, position = bytearray(), _XERIAL_SIZE
    while position < len(data):
        (size,) = struct.unpack_from("!i", data, position)
        if size < 0:
            raise ValueError("a block has no size")
        block = data[position + 4 : position + 4 + size]
        found += snappy.decompress(_small(block, most - len(found)))
        position += 4 + size
    return bytes(found)


def _small(block: bytes, most: int) -> bytes:
    """`block`, which says in the beginning how much it unpacks to."""
    size = shift = 0
    for byte in block[:5]:
        size |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            break
    if size > most:
        raise TooMuch(f"{size} bytes")
    return block


#: What a batch calls them: their names, and how they are unpacked.
_CODECS: dict[int, tuple[str, Callable[[bytes, int], bytes]]] = {
    1: ("gzip", _gzip),
    2: ("snappy", _snappy),
    3: ("lz4", _lz4),
    4: ("zstd", _zstd),
}
