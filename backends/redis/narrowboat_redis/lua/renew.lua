-- Start one lease afresh. A lease that has ended is never revived, and a name that is gone is never made again.
-- KEYS held, queue, told, alive, gone (of the owner)
-- ARGV owner, token, ttl in ms, channel
-- Answers 1, or why it is lost: "expired", "evicted", "taken".

local _, now = clock()
go_on(KEYS[1])
local value = redis.call('HGET', KEYS[1], ARGV[1])
local lease = value and parse(value)
if lease and lease.token == ARGV[2] and lease.ends > now then
  local ttl = tonumber(ARGV[3])
  redis.call('HSET', KEYS[1], ARGV[1], record(lease.token, now + ttl, lease.rest))
  outlast(KEYS[1], ttl)
  if now + ttl < lease.ends then -- the next waiter knows the old end: it is to look again
    local owner, provider = string.match(redis.call('ZRANGE', KEYS[2], 0, 0)[1] or '', '^(%S+) [xrs] %d+ (%S+)$')
    if owner then
      redis.pcall('PUBLISH', ARGV[4] .. provider, owner)
    end
  end
  return 1
end
local reason = 'taken'
if lease and lease.token == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
  reason = 'expired'
elseif redis.call('GET', KEYS[5]) == 'e' then
  reason = 'evicted'
end
advance({ held = KEYS[1], queue = KEYS[2], told = KEYS[3], alive = KEYS[4] }, ARGV[4], now)
return reason
