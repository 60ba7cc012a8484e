"""A fence in Redis or Valkey: one script compares the token and runs the writes, so nothing comes between the two.

    fence = RedisFence(redis.Redis())
    fence.run("invoice:42", held.token, ("HSET", "invoice:42", "total", "100"), ("SADD", "{invoice:42}:tags", "paid"))

It uses a client of redis-py that the program has. A check of its own, before a pipeline, would fence nothing: MULTI cannot
compare, and what stands behind it would be written all the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from narrowboat._engine import checks
from narrowboat.errors import Conflict, InvalidArgument
from narrowboat.fencing import decision

#: Lua's stack holds some 8,000 values; a longer command would fail in the middle of the script, after others have run.
_ARGUMENTS_MAX = 5000
#: KEYS: the fence's. ARGV: the token, then for each command how many arguments it has, and those. Tokens are compared as
#: texts, because a number of Lua has 53 bits.
_SCRIPT = """
local token, seen = ARGV[1], redis.call('GET', KEYS[1]) or '0'
if not (seen == '0' or #seen < 20 and string.find(seen, '^[1-9]%d*$')) then return {2, string.sub(seen, 1, 30)} end
if #seen > #token or #seen == #token and seen > token then return {1, seen} end
if seen ~= token then redis.call('SET', KEYS[1], token) end
local at, replies = 2, {0}
while ARGV[at] do
  local last = at + tonumber(ARGV[at])
  replies[#replies + 1] = redis.call(unpack(ARGV, at + 1, last))
  at = last + 1
end
return replies
"""
Argument = str | bytes | int | float


def arguments(prefix: str, name: object, token: object, commands: Sequence[Sequence[Argument]]) -> tuple[Any, ...]:
    """What `eval` is called with. `InvalidArgument` for what is no name, token or command."""
    name, number = decision.asked(name, token)
    # A name with a hash tag of its own keeps it. Any other becomes one, so that the keys "NAME" and "{NAME}:..." are beside it.
    # The colon keeps the fences of "a" and "{a}" apart.
    opened = name.find("{")
    key = f":{name}" if opened >= 0 and name.find("}", opened) > opened + 1 else f"{{{name}}}"
    values: list[Argument] = [str(number)]
    for command in commands:
        if isinstance(command, (str, bytes)) or not 1 <= len(command) <= _ARGUMENTS_MAX:
            raise InvalidArgument(
                f"a command for fence {name!r}: expected a sequence of 1 to {_ARGUMENTS_MAX} arguments, such as "
                '("SET", "key", "value"). Nothing was sent'
            )
        values += [len(command), *command]
    return (_SCRIPT, 1, prefix + key, *values)


def answer(name: str, token: int, found: Any) -> list[Any]:
    """The commands' answers. `StaleWrite` or `Conflict` where the script refused."""
    if found[0] == 0:
        return list(found[1:])
    seen = found[1] if isinstance(found[1], str) else found[1].decode("ascii", "replace")
    if found[0] == 1:
        raise decision.stale(name, token, int(seen))
    raise Conflict(
        f"fence {name!r}: its key holds {seen!r}, which is no token; nothing was written. Set it to the newest token that was "
        "used, or delete it while no holder is at work"
    )


class Client:
    """A client and a prefix, checked; for both faces."""

    _asynchronous = False

    def __init__(self, client: Any, *, prefix: str = "fence:") -> None:
        if hasattr(client, "command_stack") or not callable(getattr(client, "eval", None)):
            raise InvalidArgument(f"RedisFence: expected a client of redis-py, and no pipeline; got {type(client).__name__}")
        if inspect.iscoroutinefunction(client.execute_command) is not self._asynchronous:
            other = "narrowboat.fencing" if self._asynchronous else "narrowboat.aio.fencing"
            raise InvalidArgument(
                f"RedisFence: {type(client).__module__}.{type(client).__name__} belongs to {other}.RedisFence"
            )
        if "{" in checks.text("prefix", prefix):
            raise InvalidArgument(f"prefix={prefix!r}: a brace in it would be the hash tag of every fence")
        self._client: Any = client
        self._prefix = prefix


class RedisFence(Client):
    """A fence whose tokens are keys of a Redis or Valkey server: the primary, some sentinels', or a cluster's.

    Args:
        client: a `redis.Redis` or `redis.RedisCluster`; it stays the program's, who closes it.
        prefix: what the fences' keys begin with. The fence of `invoice:42` is the key `fence:{invoice:42}`.

    Raises:
        InvalidArgument: it is no such client, or one of the other face.
    """

    def run(self, name: str, token: int, *commands: Sequence[Argument]) -> list[Any]:
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
            Exception: the client's own, as it is. After a lost reply the commands may have run, twice where it retries.
        """
        return answer(name, token, self._client.eval(*arguments(self._prefix, name, token, commands)))
