-- How many messages a source has. Keys: see messages.lua; KEYS[5]: the stream of its dead letters (the source's own where
-- it has none).
--
-- ARGV: kind, group
--
-- Returns {"ok", ready, in flight, delayed, dead}, {"missing"} or {"taken", by what, of whom}. What is more than one call
-- counts follows as "ready" or "dead", a stream and the id from where count.lua goes on.

local asked = open(ARGV[1], ARGV[2])
local other, of = clash(asked)
if other then return {'taken', other, of or ''} end

local uncounted = {}

-- What the group has not read yet of one of its streams.
local function unread(source, index)
  local key = key_of(source, index)
  local infos = redis.pcall('XINFO', 'GROUPS', key)
  for _, info in ipairs(infos.err and {} or infos) do
    if field(info, 'name') == source.group then
      if alone(source, index) then return redis.call('XLEN', key) - field(info, 'pending') end
      local lag = field(info, 'lag')
      if lag then return lag end
      local count, last = 0, field(info, 'last-delivered-id')  -- a server before 7 counts nothing for us
      for _ = 1, 20 do
        local entries = redis.call('XRANGE', key, '(' .. last, '+', 'COUNT', 100)
        count = count + #entries
        if #entries < 100 then return count end
        last = entries[100][1]
      end
      for _, part in ipairs({source == asked and 'ready' or 'dead', key, last}) do uncounted[#uncounted + 1] = part end
      return count
    end
  end
  return index == 0 and not source.topic and redis.call('EXISTS', key) == 1 and redis.call('XLEN', key) or 0
end

local function counts(source)
  local ready = redis.call('ZCARD', source.root .. ':back') + redis.call('ZCARD', source.root .. ':blocked')
  for _, indexes in pairs((classes(source))) do
    for _, index in ipairs(indexes) do ready = ready + unread(source, index) end
  end
  local delayed = redis.call('ZCARD', source.root .. ':due') + redis.call('ZCARD', source.root .. ':hold')
  return ready, redis.call('ZCARD', source.root .. ':lease'), delayed
end

local dead = 0
if KEYS[5] ~= KEYS[2] then
  local letters = load(asked.root .. '.dead', KEYS[5], 'queue', 'narrowboat')
  if letters.found == 'queue' then
    tick(letters)
    local ready, out, delayed = counts(letters)
    dead = ready + out + delayed
  end
end
if not asked.found and (asked.kind ~= 'queue' or redis.call('EXISTS', asked.stream) == 0) then
  return {'missing', 0, 0, 0, dead}
end
if asked.kind == 'topic' then
  promote(asked)
  ring_out()
  return {'ok', 0, 0, redis.call('ZCARD', asked.root .. ':due'), 0}
end
if asked.found then tick(asked) end
local ready, out, delayed = counts(asked)
ring_out()
return {'ok', ready, out, delayed, dead, unpack(uncounted)}
