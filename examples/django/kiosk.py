"""A Django project in one file, with locks and messages: `gunicorn --preload -w 3 kiosk:application`.

Its worker is `narrowboat run kiosk:worker`. Both faces are made when the module is imported, and connect at their first call.
"""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections.abc import Iterator
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, connection, transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

import narrowboat
from narrowboat.codecs import JSON

if not settings.configured:
    settings.configure(
        SECRET_KEY="only for this example",  # noqa: S106  # it signs nothing here
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("KIOSK_DB", "kiosk.db")}},
    )
    django.setup()

locks = narrowboat.locks(require="scope=host")
broker = narrowboat.broker(require="scope=host")
orders = broker.queue("orders", codec=JSON)


def create(pieces: int) -> None:
    """The tables, and the stock."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE stock (pieces INTEGER NOT NULL)")
        cursor.execute("INSERT INTO stock VALUES (%s)", [pieces])
        cursor.execute("CREATE TABLE shipped (id TEXT PRIMARY KEY)")


def sell(request: HttpRequest) -> JsonResponse:
    """One piece for each request, while there are some."""
    with locks.lock("stock", ttl=30, timeout=10), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pieces FROM stock")
        (pieces,) = cursor.fetchone()
        if not pieces:
            return JsonResponse({"process": os.getpid()}, status=409)
        cursor.execute("UPDATE stock SET pieces = %s", [pieces - 1])
        order = {"id": uuid.uuid4().hex}
        # Not before the sale is committed, and not if it is rolled back.
        transaction.on_commit(functools.partial(orders.publish, order, id=order["id"]))
    return JsonResponse({"process": os.getpid(), **order}, status=201)


urlpatterns = [path("sell", sell)]
application = get_wsgi_application()


@contextlib.contextmanager
def fresh_connections(handling: Any) -> Iterator[None]:
    """What Django does around each request: a connection that the database has closed is not used again."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


worker = narrowboat.Worker(broker, locks, around=[fresh_connections])


@worker.queue("orders", codec=JSON)
def ship(message: narrowboat.Message[Any]) -> None:
    """Once for each order, however often the message comes."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT OR IGNORE INTO shipped VALUES (%s)", [message.data["id"]])
    print("shipped", message.data["id"], flush=True)
