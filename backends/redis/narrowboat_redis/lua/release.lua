-- Free one generation, and notify the next waiter. Another generation is never touched.
-- KEYS held, queue, told, alive
-- ARGV owner, token, channel
-- Answers 1, or 0 when nothing was freed because it was no longer there. Where nobody waits: release_quiet.lua.

local _, now = clock()
go_on(KEYS[1])
local value = redis.call('HGET', KEYS[1], ARGV[1])
local freed = 0
if value then
  local lease = parse(value)
  if lease and lease.token == ARGV[2] then
    redis.call('HDEL', KEYS[1], ARGV[1])
    freed = lease.ends > now and 1 or 0
  end
end
advance({ held = KEYS[1], queue = KEYS[2], told = KEYS[3], alive = KEYS[4] }, ARGV[3], now)
return freed
