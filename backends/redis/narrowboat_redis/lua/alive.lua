-- A provider's heartbeat for all its waiters in one shard. It notifies the waiters of these names that can go now: the turn of
-- a dead waiter passes to the next, and a notification that was lost is repeated.
-- KEYS alive, then held, queue, told for each name that the provider waits for
-- ARGV provider, channel
-- Answers {1 or 0: whether it still counted as alive, the owners of this provider that can go, 1 or 0 for each name: whether
-- there is a queue, 1 or 0 for each name: whether there is more to be cleared away, so that it is best said again at once}.

local _, now = clock()
local provider, channel = ARGV[1], ARGV[2]
local known = tonumber(redis.call('ZSCORE', KEYS[1], provider) or nil)
local over = redis.call('ZRANGE', KEYS[1], '-inf', text(now), 'BYSCORE', 'LIMIT', 0, DEAD)
redis.call('ZREM', KEYS[1], '', unpack(over)) -- also where there are none: a full server allows what comes behind it
redis.call('ZADD', KEYS[1], text(now + PATIENCE), provider)
redis.call('PEXPIRE', KEYS[1], PATIENCE)
local owners, queues, more = {}, {}, {}
for i = 2, #KEYS, 3 do
  local keys = { held = KEYS[i], queue = KEYS[i + 1], told = KEYS[i + 2], alive = KEYS[1] }
  local state = advance(keys, channel, now)
  if state then
    for _, each in ipairs(state.told) do
      if each.provider == provider and each.since + 200 <= now then
        owners[#owners + 1] = each.owner
      end
    end
    redis.call('PEXPIRE', keys.queue, 2 * PATIENCE)
    redis.call('PEXPIRE', keys.told, 2 * PATIENCE)
  end
  more[#more + 1] = state and state.more and 1 or 0
  queues[#queues + 1] = redis.call('EXISTS', keys.queue)
end
return { known and known > now and 1 or 0, owners, queues, more }
