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
--   A mode is x (exclusive), r (shared) or s (semaphore); the limit is 0 but for semaphores. Each key but token ends by itself.
--
-- Numbers beyond 2^53 do not occur: microseconds since the epoch reach that in the year 2255, and a last token that is further
-- ahead of the clock than a day is not believed.
--
-- A value in another form than described here is foreign or damaged. It is never taken for a lease and never dropped, and it
-- blocks its own name only. No script looks at more than a bounded number of waiters: the next call goes on from there.

local PATIENCE = 5000  -- ms without a sign of life after which a waiter counts as dead
local CLAIM = 500      -- ms in which a waiter that was told has to come before others need not wait for it
local DAY = 86400000000 -- microseconds that the last token may be ahead of the clock
local DEAD = 200        -- waiters that one call drops
local LIVING = 2000     -- waiters that can go and that one call looks at
local HELD = 20000      -- holders of one name that one call looks at

-- Microseconds and milliseconds since the epoch by the server's clock.
local function clock()
  local time = redis.call('TIME')
  local micros = time[1] * 1000000 + time[2]
  return micros, math.floor(micros / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

-- The next token. False and the last token, if that cannot be one of ours.
local function mint(token_key, micros)
  local last = redis.call('GET', token_key)
  local known = tonumber(last or 0)
  if not known or known >= micros + DAY then
    return false, last
  end
  local token = text(known >= micros and known + 1 or micros)
  redis.call('SET', token_key, token)
  return token
end

local function record(token, ends, rest)
  return token .. ' ' .. text(ends) .. rest
end

-- `rest` is " ttl mode limit label", as the client gave it. nil: it is not one of ours.
local function parse(value)
  local token, ends, rest, ttl, mode, limit = string.match(value, '^(%d+) (%d+)( (%d+) ([xrs]) (%d+) .*)$')
  if not token or #token > 16 or #ends > 15 or #ttl > 15 or #limit > 15 then
    return nil
  end
  return { token = token, ends = tonumber(ends), rest = rest, ttl = tonumber(ttl), mode = mode, limit = tonumber(limit) }
end

-- The key lives as long as its longest lease. Leases end by their own time in any case.
local function outlast(held_key, ttl)
  if redis.call('PTTL', held_key) < ttl then
    redis.call('PEXPIRE', held_key, ttl)
  end
end

-- The holders by owner, their number, one of them, and the first end of a lease. Leases that are over are dropped first.
-- Nothing if there is foreign data, or more holders than can be.
local function holders(held_key, now)
  local found, count, one, first = {}, 0, nil, nil
  if redis.call('HLEN', held_key) > HELD then
    return nil
  end
  local flat = redis.call('HGETALL', held_key)
  for i = 1, #flat, 2 do
    local lease = parse(flat[i + 1])
    if not lease then
      return nil
    elseif lease.ends <= now then
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

-- Whether a contender may go beside `held` holders of the mode `holding`, with `ahead` waiters ahead of it.
local function admitted(mode, limit, holding, held, ahead, writer_ahead)
  if mode == 'x' then
    return held == 0 and ahead == 0
  end
  if mode == 'r' then
    return holding ~= 'x' and not writer_ahead
  end
  return held + ahead < limit
end

-- Walk the queue from its front: drop dead waiters, and notify those that can go and were not notified yet. `mine`: the member
-- that asks. It goes if it can, and counts as a holder from then on. Returns a table with: granted (mine goes), place (mine was
-- met), open (the end of the queue was reached: no waiter there goes first), ahead and writer (the waiters ahead of one at the
-- end), claim (when the first claim of others ends), told (members that were notified a while ago), more (there are more dead
-- waiters than one call drops, and those behind them are neither notified nor go).
local function walk(keys, channel, now, holding, held, mine)
  local state = { ahead = 0, writer = false, told = {}, length = 0 }
  local start, dropped, living, step = 0, 0, {}, 16
  while true do
    local members, dead = redis.call('ZRANGE', keys.queue, start, start + step - 1), {}
    local function bury()
      if #dead > 0 then
        redis.call('ZREM', keys.queue, unpack(dead))
        redis.call('HDEL', keys.told, unpack(dead))
        dropped = dropped + #dead
      end
    end
    for _, member in ipairs(members) do
      local owner, mode, limit, provider = string.match(member, '^(%S+) ([xrs]) (%d+) (%S+)$')
      local told
      local gone = not owner
      if owner then
        if member ~= mine then
          if living[provider] == nil then
            local alive = tonumber(redis.call('ZSCORE', keys.alive, provider) or nil)
            living[provider] = alive and alive > now or false
          end
          gone = not living[provider]
        end
        if not gone then
          told = tonumber(redis.call('HGET', keys.told, member) or nil)
          gone = member ~= mine and told and told + PATIENCE <= now
        end
      end
      if gone then
        dead[#dead + 1] = member
      else
        start = start + 1
        state.length = state.length + 1
        if not admitted(mode, tonumber(limit), holding, held, state.ahead, state.writer) then
          if member == mine then
            state.place = true
          end
          bury()
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
    bury()
    if #members < step then
      state.open = true
      return state
    end
    if dropped >= DEAD or state.length >= LIVING then
      state.more = true
      return state
    end
    step = #dead == step and 64 or 16
  end
end

-- Notify the waiters that may go now. An error here must not undo what the caller has done: the next call meets it again.
local function advance(keys, channel, now)
  local fine, state = pcall(function()
    if redis.call('EXISTS', keys.queue) == 1 then
      local found, held, one = holders(keys.held, now)
      return found and walk(keys, channel, now, one and one.mode, held, nil)
    end
  end)
  return fine and state or nil
end

-- A write that changes nothing, and that a server whose memory is full allows: it then allows what comes behind it.
local function go_on(held_key)
  redis.call('HDEL', held_key, '')
end
