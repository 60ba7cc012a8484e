-- The beginning of attempt.lua, before what the scripts share: nobody holds the name or waits for it, as nearly always. It
-- comes first because even to define functions that are not called would cost more than this.
-- KEYS and ARGV as in attempt.lua.

if redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) == 0 then
  local time = redis.call('TIME')
  local micros = time[1] * 1000000 + time[2]
  local token = string.format('%.0f', micros)
  local last = redis.call('SET', KEYS[4], token, 'GET')
  local known = not last and 0 or tonumber(last)
  if not known or known >= micros then
    if not known or known >= micros + 86400000000 then  -- no token of ours is a day ahead of the clock: put back, refused
      redis.call('SET', KEYS[4], last)
      return { 'token', last }
    end
    token = string.format('%.0f', known + 1)
    redis.call('SET', KEYS[4], token)
  end
  redis.call('HSET', KEYS[1], ARGV[1], token .. ' ' .. string.format('%.0f', micros / 1000 + ARGV[2]) .. ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return token
end
