-- Drop the messages that are ready or delayed, not those in flight. Keys: see messages.lua.
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
local ALL_AT_ONCE = 5000  -- what one call drops of each place; who asked asks again

-- Members of a sorted set, which are gone from there.
local function cut(name)
  local members = redis.call('ZRANGE', source.root .. name, 0, ALL_AT_ONCE - 1)
  if #members > 0 then redis.call('ZREMRANGEBYRANK', source.root .. name, 0, #members - 1) end
  return members, #members == ALL_AT_ONCE and '1' or ''
end

local dropped = redis.call('ZCARD', source.root .. ':due')
redis.call('UNLINK', source.root .. ':due')
if source.kind == 'topic' then
  ring_out()
  return {'ok', dropped, ''}
end

local doomed = {}
local blocked, more = cut(':blocked')  -- first: nobody moves up
for _, member in ipairs(blocked) do
  local entry = entry_of(member:sub((member:find('\0', 1, true) or 0) + 1))
  if entry then
    entry.key = ''  -- the turn is another's
    doomed[#doomed + 1] = entry
  end
end
for _, name in ipairs(more == '' and {':back', ':hold'} or {}) do
  local items, left = cut(name)
  for _, entry in ipairs(entries_of(items)) do doomed[#doomed + 1] = entry end
  if left ~= '' then more = left end
end
for _, indexes in pairs(more == '' and (classes(source)) or {}) do
  for _, index in ipairs(indexes) do
    for page = 1, ALL_AT_ONCE / 500 do
      local command = {'XREADGROUP', 'GROUP', source.group, PARKED, 'COUNT', 500, 'STREAMS', key_of(source, index), '>'}
      local found = as_group(source, index, command)
      if not found then break end
      for _, entry in ipairs(found[1][2]) do doomed[#doomed + 1] = {index = index, id = entry[1], key = ''} end
      if page == ALL_AT_ONCE / 500 then more = '1' end
    end
  end
end
remove(source, doomed)
if source.topic then trim(source.topic) end
ring_out()
return {'ok', dropped + #doomed, more}
