"""Faults of the Redis backend: in its Lua scripts, which decide everything, and in what wakes a waiter."""

from __future__ import annotations

from integration.mutants import mutant

MUTANTS = [
    mutant(
        "a release frees all who hold",
        "lua/release_quiet.lua",
        "  redis.call('HDEL', KEYS[1], ARGV[1])\n",
        "  redis.call('UNLINK', KEYS[1])\n",
        *("L108", "L109"),
    ),
    mutant(
        "a renewal of what is gone succeeds",
        "lua/renew.lua",
        "return reason\n",
        "return 1\n",
        *("L54", "L60", "L16", "L66"),
    ),
    mutant(
        "renewals add to what is left",
        "lua/renew.lua",
        "record(lease.token, now + ttl, lease.rest))\n  outlast(KEYS[1], ttl)\n",
        "record(lease.token, lease.ends + ttl, lease.rest))\n  outlast(KEYS[1], lease.ends - now + ttl)\n",
        *("L52", "L60"),
    ),
    mutant(
        "a repeated attempt leaves the lease as it is",
        "lua/attempt.lua",
        "record(own.token, now + ttl, rest))\n  outlast(keys.held, ttl)\n  return own.token",
        "record(own.token, own.ends, rest))\n  return own.token",
        "L91",
    ),
    mutant(
        "leases are kept in whole seconds",
        "lua/attempt_free.lua",
        "string.format('%.0f', micros / 1000 + ARGV[2])",
        "string.format('%.0f', micros / 1000 + math.floor(ARGV[2] / 1000) * 1000)",
        *("L58", "L49"),
    ),
    mutant(
        "a token is the number of the name's holders",
        "lua/attempt_free.lua",
        "  local token = string.format('%.0f', micros)\n",
        "  local token = '1'\n  if true then\n    redis.call('HSET', KEYS[1], ARGV[1], token .. ' '"
        " .. string.format('%.0f', micros / 1000 + ARGV[2]) .. ARGV[3])\n"
        "    redis.call('PEXPIRE', KEYS[1], ARGV[2])\n    return token\n  end\n",
        *("L74", "L75", "L21"),
    ),
    mutant(
        "a withdrawn owner's late attempt still takes the lock",
        "lua/withdraw.lua",
        "redis.call('SET', KEYS[5], 'w', 'PX', WITHDRAWN)",
        "redis.call('SET', KEYS[5], 'w', 'PX', 1)",
        *("L94", "L96", "L29", "L90"),
    ),
    mutant(
        "a release wakes the first waiter only",
        "lua/locks.lua",
        "            redis.pcall('PUBLISH', channel .. provider, owner) -- who is not heard is told with the next sign of life",
        "            if state.ahead == 0 then redis.pcall('PUBLISH', channel .. provider, owner) end",
        *("L108", "L109"),
    ),
    mutant(
        "a semaphore has a permit too many",
        "lua/locks.lua",
        "  return held + ahead < limit\n",
        "  return held + ahead <= limit\n",
        "L109",
    ),
    mutant(
        "readers pass a writer that waits",
        "lua/attempt.lua",
        "if not goes and state.open and not state.place and (waits or state.length == 0) then",
        "if not goes and not state.place then",
        *("L108", "L36"),
    ),
    mutant(
        "the subscription is not made again",
        "subscription.py",
        "                self._on_broken(error)\n",
        "                self._on_broken(error)\n                return\n",
        "L32",
    ),
    mutant(
        "an ack after the end of the lease settles",
        "lua/settle.lua",
        "      if ends and tonumber(ends) > NOW then\n        tokens",
        "      if ends then\n        tokens",
        "B30",
    ),
    mutant(
        "an ack of a stale delivery settles",
        "lua/settle.lua",
        "      if ends and tonumber(ends) > NOW then\n        tokens",
        "      if true then\n        tokens",
        *("B26", "B80", "B25"),
    ),
    mutant(
        "an extension adds to what is left",
        "lua/extend.lua",
        "      changed[#changed + 1] = ends\n",
        "      changed[#changed + 1] = text(tonumber(until_) + tonumber(ARGV[3]))\n",
        *("B30", "B31"),
    ),
    mutant(
        "a message that comes back is not counted",
        "lua/receive.lua",
        "{'RETRYCOUNT', batch.attempt + 1, 'FORCE'}",
        "{'RETRYCOUNT', batch.attempt, 'FORCE'}",
        *("B34", "B40", "B22"),
    ),
    mutant(
        "the next of a key does not move up",
        "lua/upkeep.lua",
        "  if source.ordered then\n    for _, entry in ipairs(entries) do turn(source, entry.key) end\n  end\nend\n\n"
        "-- What has expired",
        "end\n\n-- What has expired",
        *("B57", "B58", "B59", "B56"),
    ),
    mutant(
        "a duplicate is stored",
        "lua/send.lua",
        "redis.call('ZADD', seen, 'NX', text(NOW + window), id) == 0 then return true end",
        "redis.call('ZADD', seen, 'NX', text(NOW + window), id) == 2 then return true end",
        *("B54", "B73"),
    ),
    mutant(
        "the time to live counts from when a message is due",
        "lua/send.lua",
        "  local expires = ttl > 0 and NOW + ttl or 0\n",
        "  local expires = ttl > 0 and NOW + ttl + delay or 0\n",
        *("B51", "B52"),
    ),
    mutant(
        "a topic that is deleted leaves its groups",
        "lua/delete.lua",
        "    drop({root = source.root .. '.' .. group, stream = ARGV[3] .. group})\n",
        "",
        *("B100", "B18"),
    ),
    mutant(
        "a dead letter keeps its time to live",
        "lua/settle.lua",
        "    local over = name == 'narrowboat-expires' or (first and name == 'expires') or",
        "    local over =",
        *("B41", "B51"),
    ),
]
