-- Who holds one name, and how many wait for it. Changes nothing.
-- KEYS held, queue
-- Answers {now in ms, number of waiters, values of the leases ...}.

local micros, now = clock()
local answer = { text(now), redis.call('ZCARD', KEYS[2]) }
for _, value in ipairs(redis.call('HVALS', KEYS[1])) do
  answer[#answer + 1] = value
end
return answer
