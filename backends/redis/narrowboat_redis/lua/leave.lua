-- Remove a consumer. Its unsettled messages are ready again, counted. Keys: see messages.lua.
--
-- ARGV: kind, group, consumer
--
-- Returns how many went back. The messages that are too many for one call come back when their leases end.

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
      park(source, entries)  -- before the leases go: where it fails, they end by themselves
      if #ended > 0 then many('ZREM', source.root .. ':lease', ended) end
      back, pages = back + #entries, pages + 1
      left = #entries == 1000
    until not left or pages == 5
    if not left then redis.pcall('XGROUP', 'DELCONSUMER', key, source.group, consumer) end
  end
end
if source.topic then trim(source.topic) end
-- For all ready messages, not only for these: the last notification may have gone to the consumer that leaves.
ring(source, back + 1)
ring_out()
return back
