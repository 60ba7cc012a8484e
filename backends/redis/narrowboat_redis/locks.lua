-- What all scripts of the locks share. The key schema:
--
--   Every name belongs to one of 128 shards (CRC-16 of the name, modulo 128), and all keys of a shard share its hash tag, so
--   that in a cluster a script touches one slot. P is the prefix, S the shard, N the name, each percent-encoded.
--
--   nb:l:{P:S}:token      string  the last fencing token of the shard; the next is the larger of this plus one and the
--                                 server's clock in microseconds. One for each shard: nothing is left behind for a name
--   nb:l:{P:S}:alive      zset    provider -> until when (ms) its waiters in this shard count as alive
--   nb:l:{P:S}:held:N     hash    owner -> "token ends ttl mode limit label"; ends in ms since the epoch, ttl in ms
--   nb:l:{P:S}:queue:N    zset    "owner mode limit provider" -> place; the queue, first come first served
--   nb:l:{P:S}:told:N     hash    member of the queue -> since when (ms) it was told that it can go
--   nb:l:{P:S}:gone:O     string  'w': the owner O was withdrawn, an attempt of it that is still on its way does nothing;
--                                 'e': it was evicted, which its next renewal is told
--   nb:l:P:wake:V         channel where the provider V hears the owners that can go
--
--   A mode is x (exclusive), r (shared) or s (semaphore); the limit is 0 but for semaphores. Every key but token ends by itself.
--
-- Numbers beyond 2^53 do not occur: microseconds since the epoch reach that in the year 2255.

local PATIENCE = 5000  -- ms without a sign of life after which a waiter counts as dead
local CLAIM = 500      -- ms in which a waiter that was told has to come before others need not wait for it
local WITHDRAWN = 30000 -- ms for which a withdrawn owner is remembered

-- Microseconds and milliseconds since the epoch by the server's clock.
local function clock()
  local time = redis.call('TIME')
  local micros = time[1] * 1000000 + time[2]
  return micros, math.floor(micros / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

local function mint(token_key, micros)
  local token = text(micros)
  local last = redis.call('SET', token_key, token, 'GET')
  if last and tonumber(last) >= micros then
    token = text(last + 1)
    redis.call('SET', token_key, token)
  end
  return token
end

local function record(token, ends, rest)
  return token .. ' ' .. text(ends) .. rest
end

-- `rest` is " ttl mode limit label", as the client gave it.
local function parse(value)
  local token, ends, rest, ttl, mode, limit = string.match(value, '^(%d+) (%d+)( (%d+) (%a) (%d+) .*)$')
  return { token = token, ends = tonumber(ends), rest = rest, ttl = tonumber(ttl), mode = mode, limit = tonumber(limit) }
end

-- The key lives as long as its longest lease. Leases end by their own time in any case.
local function outlast(held_key, ttl)
  if redis.call('PTTL', held_key) < ttl then
    redis.call('PEXPIRE', held_key, ttl)
  end
end

-- Who holds, without those whose lease is over, which are dropped: by owner, their number, one of them, the first end.
local function holders(held_key, now)
  local found, count, one, first = {}, 0, nil, nil
  local flat = redis.call('HGETALL', held_key)
  for i = 1, #flat, 2 do
    local lease = parse(flat[i + 1])
    if lease.ends <= now then
      redis.call('HDEL', held_key, flat[i])
    else
      found[flat[i]] = lease
      count = count + 1
      one = lease
      if not first or lease.ends < first then
        first = lease.ends
      end
    end
  end
  return found, count, one, first
end

-- Whether a contender may go beside `held` holders of the mode `holding`, with `ahead` waiters that go before it.
local function admitted(mode, limit, holding, held, ahead, writer_ahead)
  if mode == 'x' then
    return held == 0 and ahead == 0
  end
  if mode == 'r' then
    return holding ~= 'x' and not writer_ahead
  end
  return held + ahead < limit
end

-- Walk the queue from its front: drop who is dead, tell who can go and was not told yet. `mine`: the member that asks, which
-- goes if it can, and counts as a holder from then on. Returns a table with: granted (mine goes), place (mine was met),
-- open (the end of the queue was reached: nobody there has to go first), ahead and writer (who goes before one at the end),
-- claim (when the first claim of others ends), told (members that were told a while ago).
local function walk(keys, channel, now, holding, held, mine)
  local state = { ahead = 0, writer = false, told = {}, length = 0 }
  local start = 0
  while true do
    local members = redis.call('ZRANGE', keys.queue, start, start + 15)
    for _, member in ipairs(members) do
      local owner, mode, limit, provider = string.match(member, '^(%S+) (%a) (%d+) (%S+)$')
      local told = tonumber(redis.call('HGET', keys.told, member) or nil)
      local gone = false
      if member ~= mine then
        local alive = tonumber(redis.call('ZSCORE', keys.alive, provider) or nil)
        gone = not alive or alive <= now or (told and told + PATIENCE <= now)
      end
      if gone then
        redis.call('ZREM', keys.queue, member)
        redis.call('HDEL', keys.told, member)
      else
        start = start + 1
        state.length = state.length + 1
        if not admitted(mode, tonumber(limit), holding, held, state.ahead, state.writer) then
          if member == mine then
            state.place = true
          end
          return state
        end
        if member == mine then
          state.place = true
          state.granted = true
          holding = mode
          held = held + 1
          redis.call('ZREM', keys.queue, member)
          redis.call('HDEL', keys.told, member)
          start = start - 1
        else
          if not told then
            told = now
            redis.call('HSET', keys.told, member, text(now))
            redis.call('PEXPIRE', keys.told, 2 * PATIENCE)
            redis.pcall('PUBLISH', channel .. provider, owner) -- who is not heard is told with the next sign of life
          else
            state.told[#state.told + 1] = { owner = owner, provider = provider, since = told }
          end
          if told + CLAIM > now then
            state.ahead = state.ahead + 1
            state.writer = state.writer or mode == 'x'
            if not state.claim or told + CLAIM < state.claim then
              state.claim = told + CLAIM
            end
          end
        end
      end
    end
    if #members < 16 then
      state.open = true
      return state
    end
  end
end

-- Somebody may be able to go now: tell them.
local function advance(keys, channel, now)
  if redis.call('EXISTS', keys.queue) == 1 then
    local _, held, one = holders(keys.held, now)
    return walk(keys, channel, now, one and one.mode, held, nil)
  end
end
