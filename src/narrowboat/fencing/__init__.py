"""Fences: what keeps the newest fencing token beside a resource, and refuses a smaller one.

A lock with a lease cannot stop its holder. One that was stopped for longer than its lease, and goes on, is stopped here: its
write is a `StaleWrite`, and nothing of it is there. Take the fence that can compare and write in one step:

- `TableFence`: a row, in the transaction that writes (sqlite3, psycopg, SQLAlchemy, Django).
- `RedisFence`: a key, in the script that writes.
- `FileFence`: a folder, for what the processes of one host write.
- `WSGIFence`, `ASGIFence`: in front of an application, for clients that send `headers(held)`.

Those that do I/O are in `narrowboat.aio.fencing` as well. None makes a connection, and none needs a lock of this library: a
token is any number that grows with every holder.
"""

from narrowboat.fencing.asgi import ASGIFence
from narrowboat.fencing.file import FileFence
from narrowboat.fencing.http import headers
from narrowboat.fencing.redis import RedisFence
from narrowboat.fencing.table import TableFence
from narrowboat.fencing.wsgi import WSGIFence

__all__ = ["ASGIFence", "FileFence", "RedisFence", "TableFence", "WSGIFence", "headers"]
