-- How many messages a source has. Keys: see messages.lua; KEYS[5]: the stream of its dead letters (the source's own where
-- it has none).
--
-- ARGV: kind, group
--
-- Returns {"ok", ready, in flight, delayed, dead, oldest}, {"missing"} or {"taken", by what, of whom}. `oldest`: for how many
-- milliseconds a message is ready, at most, and -1 where none is. What is more than one call counts follows as "ready" or "dead",
-- a stream and the id from where count.lua goes on.

local asked = open(ARGV[1], ARGV[2])
local other, of = clash(asked)
if other then return {'taken', other, of or ''} end

local uncounted = {}
local first  -- when the oldest message that is ready got its id

local function note(entry)
  local ms = entry and tonumber((entry.id or entry[1]):match('^%d+'))
  if ms and (not first or ms < first) then first = ms end
end

-- What the group has not read yet of one of its streams, and the id up to which it has.
local function unread(source, index)
  local key = key_of(source, index)
  local infos = redis.pcall('XINFO', 'GROUPS', key)
  for _, info in ipairs(infos.err and {} or infos) do
    if field(info, 'name') == source.group then
      local read = field(info, 'last-delivered-id')
      if alone(source, index) then return redis.call('XLEN', key) - field(info, 'pending'), read end
      local lag = field(info, 'lag')
      if lag then return lag, read end
      local count, last = 0, read  -- a server before 7 counts nothing for us
      for _ = 1, 20 do
        local entries = redis.call('XRANGE', key, '(' .. last, '+', 'COUNT', 100)
        count = count + #entries
        if #entries < 100 then return count, read end
        last = entries[100][1]
      end
      for _, part in ipairs({source == asked and 'ready' or 'dead', key, last}) do uncounted[#uncounted + 1] = part end
      return count, read
    end
  end
  return index == 0 and not source.topic and redis.call('EXISTS', key) == 1 and redis.call('XLEN', key) or 0, '0-0'
end

-- The first that waits for its key's turn. Those are sorted by key; by id they are pending with nobody, among what is held.
local function note_blocked(source)
  local held, items = {}, redis.call('ZRANGE', source.root .. ':hold', 0, 999)
  for _, entry in ipairs(entries_of(items)) do held[entry.index .. ':' .. entry.id] = true end
  for _, index in ipairs((classes(source))[0]) do
    for _, pending in ipairs(redis.pcall('XPENDING', key_of(source, index), source.group, '-', '+', #items + 1, PARKED)) do
      if not held[index .. ':' .. pending[1]] then note(pending) end
    end
  end
end

local function counts(source)
  local back = redis.call('ZCARD', source.root .. ':back')
  local ready = back + redis.call('ZCARD', source.root .. ':blocked')
  for class, indexes in pairs((classes(source))) do
    if source == asked and back > 0 then
      note(entries_of(redis.call('ZRANGEBYSCORE', source.root .. ':back', -class, -class, 'LIMIT', 0, 1))[1])
    end
    for _, index in ipairs(indexes) do
      local count, read = unread(source, index)
      ready = ready + count
      if source == asked and count > 0 then
        note(redis.pcall('XRANGE', key_of(source, index), '(' .. read, '+', 'COUNT', 1)[1])
      end
    end
  end
  if source == asked and source.ordered then note_blocked(source) end
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
  return {'missing', 0, 0, 0, dead, -1}
end
if asked.kind == 'topic' then
  promote(asked)
  ring_out()
  return {'ok', 0, 0, redis.call('ZCARD', asked.root .. ':due'), 0, -1}
end
if asked.found then tick(asked) end
local ready, out, delayed = counts(asked)
ring_out()
return {'ok', ready, out, delayed, dead, first and math.max(0, NOW / 1000 - first) or -1, unpack(uncounted)}
