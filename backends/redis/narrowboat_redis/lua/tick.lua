-- Move the messages that are due in a source, or in a topic. Keys: see messages.lua.
--
-- ARGV: kind, group
--
-- Returns {now, when something is due next or ""}.

local source = open(ARGV[1], ARGV[2])
if not source.found or clash(source) then return {text(NOW), ''} end
if source.kind == 'topic' then promote(source) else tick(source) end
ring_out()
local change = next_change(source)
return {text(NOW), change and text(change) or ''}
