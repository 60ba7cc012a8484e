-- A consumer goes: what it has not settled is ready again, counted, and its name is forgotten. Keys: see messages.lua.
--
-- ARGV: kind, group, consumer
--
-- Returns how many went back.

local source = open(ARGV[1], ARGV[2])
if not source.found or clash(source) then return 0 end
local consumer, back = ARGV[3], 0
for _, indexes in pairs((classes(source))) do
  for _, index in ipairs(indexes) do
    local key = key_of(source, index)
    repeat
      local entries, tokens = pending_of(source, index, '-', '+', 1000, consumer)
      local ended = {}
      for _, token in ipairs(tokens) do
        if token then ended[#ended + 1] = token end
      end
      if #ended > 0 then many('ZREM', source.root .. ':lease', ended) end
      park(source, entries)
      back = back + #entries
    until #entries < 1000
    redis.pcall('XGROUP', 'DELCONSUMER', key, source.group, consumer)
  end
end
if source.topic then trim(source.topic) end
-- For all that is ready, not only for these: a wake that was meant for somebody may have come to the one who leaves.
ring(source, back + 1)
ring_out()
return back
