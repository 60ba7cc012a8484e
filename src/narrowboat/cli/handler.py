"""`consume --exec`: a shell command for each message, several at a time."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from narrowboat._engine.backoff import after_failure
from narrowboat.cli.output import complain
from narrowboat.cli.records import Delivered
from narrowboat.messaging import Message, Messages


class Handler:
    """Runs the command. Leaving the `with` block waits for those that run. `unsettled`: messages that may come again."""

    def __init__(self, command: str, concurrency: int, environment: Mapping[str, str], *, source: str, longest: float) -> None:
        self._command = command
        self._environment = environment
        self._source = source
        self._longest = longest  # seconds that the backend can delay
        self._slots = threading.BoundedSemaphore(concurrency)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="narrowboat-exec")
        self._running: set[subprocess.Popen[bytes]] = set()
        self.unsettled = 0

    def __enter__(self) -> Handler:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        hurry = kind is not None and not issubclass(kind, Exception)  # the second signal: do not wait for them
        if hurry:
            for process in list(self._running):
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=hurry)

    def run(self, messages: Messages[bytes], count: int | None) -> None:
        """Handle the messages until they end, or `count` of them were begun."""
        coming = iter(messages)
        begun = 0
        while begun != count:
            # A free hand first: a message that is taken and waits for one would be lost time for everybody else.
            self._slots.acquire()
            message = next(coming, None)
            if message is None:
                break
            self._pool.submit(self._handle, message)
            begun += 1

    def _handle(self, message: Message[bytes]) -> None:
        try:
            failure = self._execute(message)
            if failure is None:
                message.ack()
            else:
                complain(f"message {message.id}, attempt {message.attempt}: {failure}")
                message.nack(delay=after_failure(message.attempt, random.random, self._longest))
        except Exception as error:  # of any kind: no caller would see it, and the message's slot must not be lost
            self.unsettled += 1
            complain(f"message {message.id}: {error}")
        finally:
            self._slots.release()

    def _execute(self, message: Message[bytes]) -> str | None:
        """Why the command failed; None when it did not."""
        try:
            code = self._run(message)
        except OSError as error:  # too many headers for an environment, no more processes
            return f"the command could not be run: {error.strerror}"
        except Exception as error:  # what this message is made of cannot be handed to a command
            return f"the command could not be run: {type(error).__name__}: {error}"
        return f"exit code {code}" if code else None

    def _run(self, message: Message[bytes]) -> int:
        # A group of its own: Ctrl-C is for us, who then let the command finish.
        process = subprocess.Popen(  # noqa: S603  # to run it is what was asked
            ["/bin/sh", "-c", self._command],
            stdin=subprocess.PIPE,
            env={**self._environment, **environment(message, self._source)},
            process_group=0,
        )
        self._running.add(process)
        try:
            process.communicate(message.body)
        finally:
            self._running.discard(process)
        return process.returncode


def environment(message: Delivered, source: str) -> Mapping[str, str]:
    """The variables that tell the command about a message. A property that is not set has none."""
    fields = {
        "id": message.id,
        "source": source,
        "key": message.key,
        "attempt": message.attempt,
        "priority": message.priority,
        "published_at": message.published_at,
        "correlation_id": message.correlation_id,
        "content_type": message.content_type,
        "headers": json.dumps(dict(message.headers)),
    }
    return {f"NARROWBOAT_MESSAGE_{name.upper()}": _fitting(str(value)) for name, value in fields.items() if value is not None}


def _fitting(text: str) -> str:
    """`text` without what no variable can hold: it ends at a NUL, and half of a surrogate pair stands for no bytes."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        text = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
    return text
