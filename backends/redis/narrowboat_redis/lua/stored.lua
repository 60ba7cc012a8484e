-- What a queue or subscription was declared with, or altered to. Keys: see messages.lua.
--
-- ARGV: kind, group; to alter it: a lease and a max, "" for what stays
--
-- Returns {"ok", lease, max, ordered, levels}, {"missing"} where nothing is stored, or {"taken", by what, of whom}.

local source = open(ARGV[1], ARGV[2])
local other, of = clash(source)
if other then return {'taken', other, of or ''} end
if not source.found or not source.declared then return {'missing'} end
for at, name in ipairs({'lease', 'max'}) do
  if (ARGV[2 + at] or '') ~= '' then redis.call('HSET', source.root .. ':meta', name, ARGV[2 + at]) end
end
local lease, max = ARGV[3] or '', ARGV[4] or ''
return {'ok', lease ~= '' and lease or source.lease_text, max ~= '' and max or source.max, source.ordered and '1' or '0',
  source.levels_text}
