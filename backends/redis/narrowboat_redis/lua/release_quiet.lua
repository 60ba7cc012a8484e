-- The beginning of release.lua, before what the scripts share: nobody waits, as nearly always.
-- KEYS and ARGV as in release.lua.

if redis.call('EXISTS', KEYS[2]) == 0 then
  local value = redis.call('HGET', KEYS[1], ARGV[1])
  if not value then
    return 0
  end
  local token, ends = string.match(value, '^(%d+) (%d+)')
  if token ~= ARGV[2] then
    return 0
  end
  local time = redis.call('TIME')
  redis.call('HDEL', KEYS[1], ARGV[1])
  return tonumber(ends) > time[1] * 1000 + time[2] / 1000 and 1 or 0
end
