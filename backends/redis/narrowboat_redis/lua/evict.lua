-- Break one generation, or remove foreign data, and notify the next waiter. A holder learns of it at its next renewal.
-- KEYS held, queue, told, alive, gone (of that owner)
-- ARGV owner, its value as it was found, token ('' where it is not ours), channel; an owner '' stands for a whole key that is
-- not of our type: KEYS[1], or KEYS[2] where the value is "queue"
-- Answers 1, or 0 when it is not there (any more).

local _, now = clock()
local keys = { held = KEYS[1], queue = KEYS[2], told = KEYS[3], alive = KEYS[4] }
local owner, token = ARGV[1], ARGV[3]
if owner == '' then
  local key, right = KEYS[1], 'hash'
  if ARGV[2] == 'queue' then
    key, right = KEYS[2], 'zset'
  end
  local found = redis.call('TYPE', key).ok
  if found ~= right and found ~= 'none' then
    return redis.call('UNLINK', key)
  end
  if redis.call('TYPE', keys.held).ok ~= 'hash' then
    return 0
  end
  -- Or a field of another program whose name is empty.
end
local value = redis.call('HGET', keys.held, owner)
if not value or (token == '' and value ~= ARGV[2]) or (token ~= '' and string.match(value, '^%d+') ~= token) then
  return 0
end
redis.call('HDEL', keys.held, owner)
if token ~= '' then
  local lease = parse(value)
  redis.call('SET', KEYS[5], 'e', 'PX', math.max(lease and lease.ttl or 0, 1000) + 5000)
end
advance(keys, ARGV[4], now)
return 1
