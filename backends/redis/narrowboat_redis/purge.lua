-- Drop what is ready or delayed, not what is out. Keys: see messages.lua.
--
-- ARGV: kind, group
--
-- Returns {"ok", how many, "1" when there may be more: a script must not hold up the server}, {"missing"} or
-- {"taken", by what, of whom}.

local source = open(ARGV[1], ARGV[2])
local other, of = clash(source)
if other then return {'taken', other, of or ''} end
if not source.found then return {'missing'} end
if source.kind == 'topic' then promote(source) else tick(source) end
local dropped = redis.call('ZCARD', source.root .. ':due')
redis.call('UNLINK', source.root .. ':due')
if source.kind == 'topic' then
  ring_out()
  return {'ok', dropped, ''}
end

local blocked = redis.call('ZRANGE', source.root .. ':blocked', 0, -1)
redis.call('UNLINK', source.root .. ':blocked')  -- first: nobody moves up
local doomed = {}
for at, member in ipairs(blocked) do
  doomed[at] = entry_of(member:sub(member:find('\0', 1, true) + 1))
  doomed[at].key = ''  -- the turn is another's
end
for _, name in ipairs({':back', ':hold'}) do
  for _, item in ipairs(redis.call('ZRANGE', source.root .. name, 0, -1)) do doomed[#doomed + 1] = entry_of(item) end
  redis.call('UNLINK', source.root .. name)
end
local more = ''
for _, indexes in pairs((classes(source))) do
  for _, index in ipairs(indexes) do
    for page = 1, 20 do
      local command = {'XREADGROUP', 'GROUP', source.group, PARKED, 'COUNT', 500, 'STREAMS', key_of(source, index), '>'}
      local found = as_group(source, index, command)
      if not found then break end
      for _, entry in ipairs(found[1][2]) do doomed[#doomed + 1] = {index = index, id = entry[1], key = ''} end
      if page == 20 then more = '1' end
    end
  end
end
remove(source, doomed)
if source.topic then trim(source.topic) end
ring_out()
return {'ok', dropped + #doomed, more}
