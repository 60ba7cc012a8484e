"""A holder that is stopped for longer than its lease, wakes up and writes: a process of its own, and what its parent does.

    python tests/backends/fenced.py URL WRITER TARGET

The process takes a lock, says its token, waits for a line, writes `old` with that token, and says what became of it. It does
not look at its lease in between: it plays the moment between the last look and the write. For tests, here and in `integration`.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import narrowboat
from narrowboat import fencing

NAME = "report"
UPDATE = "UPDATE report SET value = '{}'"


def unfenced(target: str, token: int, value: str) -> None:
    """What happens without a fence, so that the scenario can fail."""
    Path(target, "report").write_text(value)


def in_file(target: str, token: int, value: str) -> None:
    with fencing.FileFence(target).guarding(NAME, token):
        Path(target, "report").write_text(value)


def in_file_aio(target: str, token: int, value: str) -> None:
    async def work() -> None:
        async with aio_fencing().FileFence(target).guarding(NAME, token):
            Path(target, "report").write_text(value)

    asyncio.run(work())


def in_sqlite3(target: str, token: int, value: str) -> None:
    with closing(sqlite3.connect(target)) as connection, connection:
        fencing.TableFence().guard(connection, NAME, token)
        connection.execute(UPDATE.format(value))


def in_sqlalchemy(target: str, token: int, value: str) -> None:
    import sqlalchemy
    from sqlalchemy.orm import Session

    engine = sqlalchemy.create_engine(target)
    try:
        with Session(engine) as session, session.begin():
            fencing.TableFence().guard(session, NAME, token)
            session.execute(sqlalchemy.text(UPDATE.format(value)))
    finally:
        engine.dispose()


def in_sqlalchemy_aio(target: str, token: int, value: str) -> None:
    import sqlalchemy
    from sqlalchemy.ext.asyncio import create_async_engine

    async def work() -> None:
        engine = create_async_engine(target)
        try:
            async with engine.begin() as connection:
                await aio_fencing().TableFence().guard(connection, NAME, token)
                await connection.execute(sqlalchemy.text(UPDATE.format(value)))
        finally:
            await engine.dispose()

    asyncio.run(work())


def in_django(target: str, token: int, value: str) -> None:
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": target}})
        django.setup()
    from django.db import connection, transaction

    try:
        with transaction.atomic():
            fencing.TableFence().guard(connection, NAME, token)
            with connection.cursor() as cursor:
                cursor.execute(UPDATE.format(value))
    finally:
        connection.close()


def in_psycopg(target: str, token: int, value: str) -> None:
    import psycopg

    with psycopg.connect(target) as connection:
        fencing.TableFence().guard(connection, NAME, token)
        connection.execute(UPDATE.format(value).encode())


def in_psycopg_aio(target: str, token: int, value: str) -> None:
    import psycopg

    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(target) as connection:
            await aio_fencing().TableFence().guard(connection, NAME, token)
            await connection.execute(UPDATE.format(value).encode())

    asyncio.run(work())


def in_redis(target: str, token: int, value: str) -> None:
    import redis

    with redis.Redis.from_url(target) as client:
        fencing.RedisFence(client).run(NAME, token, ("SET", NAME, value))


def in_redis_aio(target: str, token: int, value: str) -> None:
    import redis.asyncio

    async def work() -> None:
        async with redis.asyncio.Redis.from_url(target) as client:
            await aio_fencing().RedisFence(client).run(NAME, token, ("SET", NAME, value))

    asyncio.run(work())


def by_http(target: str, token: int, value: str) -> None:
    """The refusal of a server, as the error that a fence raises."""
    with closing(http.client.HTTPConnection("127.0.0.1", int(target), timeout=60)) as client:
        client.request("PUT", f"/{NAME}", value, fencing.headers(token))
        response = client.getresponse()
        text = response.read().decode()
    if response.status == 412:
        raise narrowboat.StaleWrite(text, name=NAME)
    assert response.status == 200, text


def aio_fencing() -> Any:
    from narrowboat.aio import fencing

    return fencing


WRITERS: dict[str, Callable[[str, int, str], None]] = {
    name: writer for name, writer in list(globals().items()) if name.startswith(("in_", "by_", "unfenced"))
}


def wakes_up_late(url: str, writer: str, target: str) -> str:
    """Stop a holder, take the lock when its lease has ended, write `new`, wake it up; what became of its write of `old`."""
    command = [sys.executable, __file__, url, writer, target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        try:
            older = int(holder.stdout.readline())
            holder.send_signal(signal.SIGSTOP)
            with narrowboat.locks(url) as locks, locks.lock(NAME, ttl=30).acquire(timeout=60) as held:
                assert held.token > older
                WRITERS[writer](target, held.token, "new")
                WRITERS[writer](target, held.token, "new")  # one holder may write several times
                holder.stdin.write("\n")
                holder.stdin.flush()
                holder.send_signal(signal.SIGCONT)
                return holder.stdout.readline().strip()
        finally:
            holder.kill()


def hold_and_write(url: str, writer: str, target: str) -> None:
    """The holder."""
    held = narrowboat.locks(url).lock(NAME, ttl=1).acquire(timeout=60)
    print(held.token, flush=True)
    sys.stdin.readline()
    try:
        WRITERS[writer](target, held.token, "old")
    except narrowboat.StaleWrite:
        print("StaleWrite", flush=True)
    else:
        print("wrote", flush=True)
    os._exit(0)  # it does not hold the lock any more, and says nothing about that


if __name__ == "__main__":
    hold_and_write(*sys.argv[1:])
