-- Let the leases of deliveries end later, or sooner, where they still stand. Keys: see messages.lua.
--
-- ARGV: kind, group, length (us) from now, the tokens
--
-- Returns "" when all are extended, else a letter for each: "." extended, "s" stale.

local source = open(ARGV[1], ARGV[2])
local leases, ends = source.root .. ':lease', text(NOW + tonumber(ARGV[3]))
local letters, failed, changed = {}, false, {}
for from = 4, #ARGV, 2000 do
  local last = math.min(from + 1999, #ARGV)
  for at, until_ in ipairs(redis.call('ZMSCORE', leases, unpack(ARGV, from, last))) do
    if until_ and tonumber(until_) > NOW then
      changed[#changed + 1] = ends
      changed[#changed + 1] = ARGV[from + at - 1]
      letters[#letters + 1] = '.'
    else
      letters[#letters + 1] = 's'
      failed = true
    end
  end
end
if #changed > 0 then
  redis.call('ZREM', leases, '')  -- changes nothing; a server whose memory is full allows it, and then what comes behind it
  many('ZADD', leases, changed)
end
return failed and table.concat(letters) or ''
