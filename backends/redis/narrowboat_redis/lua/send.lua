-- Store a batch of messages for one address. Keys: see messages.lua.
--
-- ARGV: kind, group, "1" where it may be made, dedup window (us), "1" for plain messages, count, then for each message
--   plain:  id, body
--   else:   number of field texts, priority, delay (us), ttl (us; 0: none), "1" to drop a duplicate, id, the fields
--
-- Returns {"ok", one letter for each: "." stored, "d" duplicate} (the letters are left out when all are stored),
-- {"missing"} or {"taken", by what, of whom}.

local source = open(ARGV[1], ARGV[2])
local kind, window, plain, count = ARGV[1], tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[6])
local other, of = clash(source)
if other then return {'taken', other, of or ''} end
if not source.found then
  if kind == 'inbox' then return {'ok'} end  -- whoever asked is gone
  if ARGV[3] ~= '1' then return {'missing'} end
  make(source)
end
-- It changes nothing. A server whose memory is full refuses it, and would let us go on once anything else has been written.
redis.call('ZADD', source.root .. ':due', 'XX', 0, '')
promote(source.topic or source)  -- what is due before these goes before them

local at, stored, duplicates = 7, 0, 0
if plain and #source.used == 1 and not source.topic
  and (kind ~= 'topic' or redis.call('SCARD', source.root .. ':groups') > 0) then
  local stream = source.stream
  for _ = 1, count do
    redis.call('XADD', stream, '*', 'id', ARGV[at], 'body', ARGV[at + 1])
    at = at + 2
  end
  ring(source, count)
  ring_out()
  return {'ok'}
end

local seen, due, letters = source.root .. ':ids', source.root .. ':due', {}
local forgotten = false

local function duplicate(id)
  if not forgotten then
    redis.call('ZREMRANGEBYSCORE', seen, '-inf', text(NOW))
    forgotten = true
  end
  if redis.call('ZADD', seen, 'NX', text(NOW + window), id) == 0 then return true end
  redis.call('PEXPIRE', seen, text(math.ceil(window / 1000) + 1000))
  return false
end

local function accept(fields, priority, delay, ttl, id, dedup)
  if dedup and window > 0 and duplicate(id) then
    duplicates = duplicates + 1
    return 'd'
  end
  local expires = ttl > 0 and NOW + ttl or 0
  stored = stored + 1
  if delay > 0 then
    local number = (noted(source.root, 'number', 1e15) or 0) + 1
    redis.call('HSET', source.root .. ':meta', 'number', text(number))
    local packed = cmsgpack.pack({priority, expires, fields})
    redis.call('ZADD', due, text(NOW + delay), string.format('%016.0f', number) .. packed)
  else
    store(source, priority, expires, fields)
  end
  return '.'
end

for message = 1, count do
  if plain then
    letters[message] = accept({'id', ARGV[at], 'body', ARGV[at + 1]}, 0, 0, 0)
    at = at + 2
  else
    local size = tonumber(ARGV[at])
    local fields = {unpack(ARGV, at + 6, at + 5 + size)}
    letters[message] = accept(fields, tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), ARGV[at + 5],
      ARGV[at + 4] == '1')
    at = at + 6 + size
  end
end
ring(source, stored)  -- for delayed ones too: idle consumers have to learn when they are due
ring_out()
if duplicates == 0 then return {'ok'} end
return {'ok', table.concat(letters)}
