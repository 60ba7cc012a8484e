-- Make a queue, topic, subscription or inbox that is not there. Keys: see messages.lua.
--
-- ARGV: kind, group, "1" where it may be made, lease, max, ordered, levels, ms that an inbox lives
--
-- Returns {"ok"}, {"missing"}, {"taken", by what, of whom} or {"differs", what is stored}.

local source = open(ARGV[1], ARGV[2])
local refused = declare(source, ARGV[3] == '1', {ARGV[4], ARGV[5], ARGV[6], ARGV[7]})
if refused then return refused end
if source.kind ~= 'topic' then tick(source) end
if source.kind == 'inbox' then keep(source, ARGV[8]) end
ring_out()
return {'ok'}
