-- How many entries of a stream stand behind an id. Changes nothing.
-- KEYS stream
-- ARGV id
-- Returns {how many, the last one's id, 1 where there may be more: a script must not hold up the server}.

local count, last = 0, ARGV[1]
for _ = 1, 20 do
  local entries = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 100)
  count = count + #entries
  if #entries < 100 then return {count, last, 0} end
  last = entries[100][1]
end
return {count, last, 1}
