-- A consumer goes: what it has not settled is ready again, counted, and its name is forgotten. Keys: see messages.lua.
--
-- ARGV: kind, group, consumer
--
-- Returns how many went back. What is more than a call can give back comes back when its leases end.

local source = open(ARGV[1], ARGV[2])
if not source.found or clash(source) then return 0 end
local consumer, back = ARGV[3], 0
for _, indexes in pairs((classes(source))) do
  for _, index in ipairs(indexes) do
    local key, pages, left = key_of(source, index), 0
    repeat
      local entries, tokens = pending_of(source, index, '-', '+', 1000, consumer)
      local ended = {}
      for _, token in ipairs(tokens) do
        if token then ended[#ended + 1] = token end
      end
      if #ended > 0 then many('ZREM', source.root .. ':lease', ended) end
      park(source, entries)
      back, pages = back + #entries, pages + 1
      left = #entries == 1000
    until not left or pages == 5
    if not left then redis.pcall('XGROUP', 'DELCONSUMER', key, source.group, consumer) end
  end
end
if source.topic then trim(source.topic) end
-- For all that is ready, not only for these: a wake that was meant for somebody may have come to the one who leaves.
ring(source, back + 1)
ring_out()
return back
