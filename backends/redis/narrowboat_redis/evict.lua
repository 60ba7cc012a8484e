-- Break one generation, and tell who is next; its holder is told at its next renewal.
-- KEYS held, queue, told, alive, gone (of an owner yet to be found: it is put behind)
-- ARGV token, channel
-- Answers 1, or 0 when that generation is not there.

local micros, now = clock()
local keys = { held = KEYS[1], queue = KEYS[2], told = KEYS[3], alive = KEYS[4] }
local evicted = 0
for owner, lease in pairs((holders(keys.held, now))) do
  if lease.token == ARGV[1] then
    redis.call('HDEL', keys.held, owner)
    redis.call('SET', KEYS[5] .. owner, 'e', 'PX', math.max(lease.ttl, 1000) + 5000)
    evicted = 1
  end
end
advance(keys, ARGV[2], now)
return evicted
