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
      local entries, tokens = {}, {}
      local found = redis.pcall('XPENDING', key, source.group, '-', '+', 1000, consumer)
      for at, pending in ipairs(found.err and {} or found) do
        local entry = {index = index, id = pending[1], attempt = pending[4], key = ''}
        if source.ordered then
          local stored = redis.call('XRANGE', key, entry.id, entry.id)[1]
          entry.key = stored and field(stored[2], 'key') or ''
        end
        entries[at], tokens[at] = entry, token_of(consumer, entry)
      end
      if #entries > 0 then
        many('ZREM', source.root .. ':lease', tokens)
        park(source, entries)
        back = back + #entries
      end
    until #entries < 1000
    redis.pcall('XGROUP', 'DELCONSUMER', key, source.group, consumer)
  end
end
trim_sometimes(source)
-- For all that is ready, not only for these: a wake that was meant for somebody may have come to the one who leaves.
ring(source, back + 1)
ring_out()
return back
