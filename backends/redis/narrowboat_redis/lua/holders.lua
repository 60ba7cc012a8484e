-- Who holds one name, and how many wait for it. Changes nothing.
-- KEYS held, queue
-- ARGV cursor, 0 at first
-- Answers {now in ms, number of waiters, cursor of what follows, owners and values in turn}; where a key is not of our type, -1
-- waiters, "" as cursor.

local _, now = clock()
local waiters, page = redis.pcall('ZCARD', KEYS[2]), redis.pcall('HSCAN', KEYS[1], ARGV[1], 'COUNT', 1000)
if type(waiters) == 'table' then
  waiters = -1
end
if page.err then
  return { text(now), waiters, '', {} }
end
return { text(now), waiters, page[1], page[2] }
