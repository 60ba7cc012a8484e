"""A fence in Redis or Valkey, for asyncio: the twin of `narrowboat.fencing.redis`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from narrowboat.fencing.redis import Argument, Client, answer, arguments


class RedisFence(Client):
    """A fence whose tokens are keys of a Redis or Valkey server: the primary, some sentinels', or a cluster's.

    Args:
        client: a `redis.asyncio.Redis` or `redis.asyncio.RedisCluster`; it stays the program's, who closes it.
        prefix: what the fences' keys begin with. The fence of `invoice:42` is the key `fence:{invoice:42}`.

    Raises:
        InvalidArgument: it is no such client, or one of the other face.
    """

    _asynchronous = True

    async def run(self, name: str, token: int, *commands: Sequence[Argument]) -> list[Any]:
        """Run commands if no newer token was here, in one step for everybody else.

        Args:
            name: the fence's. On a cluster all keys of the commands must be in its hash slot: the key with the same name is,
                and so is each with the name as its tag, `{invoice:42}:lines`.
            token: `held.token`. It is kept before the commands run.
            commands: each a sequence of a name and arguments. As in MULTI, one that fails undoes none before it. None at all
                only tells the fence of the token.

        Returns:
            The commands' answers, in order, as the server gave them to a script: a missing value is None, OK is `b"OK"`.

        Raises:
            StaleWrite: a greater token was here; no command ran.
            Conflict: what is kept is no token; no command ran.
            InvalidArgument: nothing was sent.
            Exception: the client's own, as it is. After a lost reply the commands may have run, twice where it retries; after
                a cancelled wait as well.
        """
        return answer(name, token, await self._client.eval(*arguments(self._prefix, name, token, commands)))
