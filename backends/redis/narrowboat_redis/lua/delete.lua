-- Remove a queue, topic (with its groups), subscription or inbox with all its messages. Keys: see messages.lua.
--
-- ARGV: kind, group, what the streams of a topic's groups begin with
--
-- Returns {"ok", 1 when it was there} or {"taken", by what, of whom}.

local source = open(ARGV[1], ARGV[2])
local other, of = clash(source)
if other then return {'taken', other, of or ''} end

local function drop(it)
  local root = it.root
  for _, name in ipairs({':due', ':lease', ':back', ':hold', ':blocked', ':turns', ':ttl', ':ids', ':groups', ':meta'}) do
    redis.call('UNLINK', root .. name)
  end
  for level = 1, 9 do redis.call('UNLINK', root .. ':' .. level) end
  redis.call('UNLINK', it.stream)
  ring(it, 1)
end

if not source.found and (source.kind ~= 'queue' or redis.call('EXISTS', source.stream) == 0) then return {'ok', 0} end
if source.topic then
  for level in source.topic.used:gmatch('%d') do
    redis.pcall('XGROUP', 'DESTROY', key_of(source, tonumber(level)), source.group)
  end
  redis.call('SREM', source.topic.root .. ':groups', source.group)
  drop(source)
  if redis.call('SCARD', source.topic.root .. ':groups') == 0 then
    for level in source.topic.used:gmatch('%d') do redis.call('XTRIM', key_of(source, tonumber(level)), 'MAXLEN', 0) end
  else
    trim(source.topic)
  end
elseif source.kind == 'topic' then
  for _, group in ipairs(redis.call('SMEMBERS', source.root .. ':groups')) do
    drop({root = source.root .. '.' .. group, stream = ARGV[3] .. group})
  end
  drop(source)
else
  drop(source)
end
ring_out()
return {'ok', 1}
