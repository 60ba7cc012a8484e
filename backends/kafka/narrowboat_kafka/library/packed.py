"""What the programs that publish have compressed, unpacked again, up to a bound: a kilobyte may mean gigabytes.

kafka-python unpacks whatever it is. This asks the same libraries for no more than is wanted. Whether they are there is asked
of kafka-python, which says which one is not.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

#: Bytes that one batch may unpack to, and records that it may have. Programs gather a megabyte, or some ten thousand.
BYTES_MAX, RECORDS_MAX = 64 * 1024 * 1024, 500_000
#: How the blocks of Java's snappy begin, and how much of that there is.
_XERIAL, _XERIAL_SIZE = b"\x82SNAPPY\x00", 16


class TooMuch(ValueError):
    """It would be more than is taken."""


def unpacked(batch: Any, most: int = BYTES_MAX) -> bytes:
    """The records of a `DefaultRecordBatch` as bytes. `UnsupportedCodecError` where a library is not here.

    Whatever the libraries raise comes through, and `TooMuch`.
    """
    data = bytes(memoryview(batch._buffer)[batch._pos :])
    kind = batch.compression_type
    if kind == batch.CODEC_NONE:
        return data
    batch._assert_has_codec(kind)
    found = {batch.CODEC_GZIP: _gzip, batch.CODEC_SNAPPY: _snappy, batch.CODEC_LZ4: _lz4, batch.CODEC_ZSTD: _zstd}[kind](
        data, most
    )
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
