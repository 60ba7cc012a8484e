-- Settle deliveries of one consumer, each only while it is still its own. Keys: see messages.lua; KEYS[5]: the stream of
-- the dead letters, where the source has any.
--
-- ARGV: kind, group, origin (the source's clear path), number of acks, their tokens, then for each other settlement
--   "n", token, delay (us)           back, after the delay
--   "r", token, ""                   back at once, this claim not counted
--   "d", token, "<attempts> <why>"   to the dead letters
--
-- Returns "" when all are settled, else a letter for each: "." settled, "s" stale, "t" the dead letters' name is taken.

local source = open(ARGV[1], ARGV[2])
local leases, acks = source.root .. ':lease', tonumber(ARGV[4])
local letters, failed, dead = {}, false, nil

-- None of these calls changes anything. A damaged key, or one of another type, fails here and not half-way.
for at = 5 + acks, #ARGV, 3 do
  if ARGV[at] == 'd' and KEYS[5] ~= KEYS[2] then
    dead = load(source.root .. '.dead', KEYS[5], 'queue', 'narrowboat')
    redis.call('XLEN', KEYS[5])
    break
  end
end
if #ARGV > 4 + acks then
  redis.call('ZCARD', source.root .. ':back')
  redis.call('ZCARD', source.root .. ':hold')
end
if source.ttl then redis.call('ZCARD', source.root .. ':ttl') end
if source.ordered then
  redis.call('ZCARD', source.root .. ':back')
  redis.call('ZCARD', source.root .. ':blocked')
  redis.call('SCARD', source.root .. ':turns')
end

-- Those tokens of ARGV, every `step`-th from `first` on, that still stand, and their numbers among all settlements, which
-- begin at `number`. The others are noted as stale.
local function standing(first, step, number)
  local tokens, numbers = {}, {}
  for from = first, #ARGV, step * 2000 do
    if step == 1 and from >= 5 + acks then break end
    local last = step == 1 and math.min(from + 1999, 4 + acks) or math.min(from + step * 1999, #ARGV)
    local asked = {}
    for at = from, last, step do asked[#asked + 1] = ARGV[at] end
    for at, ends in ipairs(redis.call('ZMSCORE', leases, unpack(asked))) do
      if ends and tonumber(ends) > NOW then
        tokens[#tokens + 1], numbers[#numbers + 1] = asked[at], number
        letters[number] = '.'
      else
        letters[number] = 's'
        failed = true
      end
      number = number + 1
    end
  end
  if #tokens > 0 then many('ZREM', leases, tokens) end
  return tokens, numbers
end

local done, settled = {}, standing(5, 1, 1)
if source.ordered or source.ttl then
  for at, token in ipairs(settled) do done[at] = entry_of_token(token) end
else  -- the common case costs no table for each
  local by_index = {}
  for _, token in ipairs(settled) do
    local index, id = token:match('^[^:]*:(%d+):[^:]*:([%d-]+)')
    local ids = by_index[index]
    if not ids then
      ids = {}
      by_index[index] = ids
    end
    ids[#ids + 1] = id
  end
  for index, ids in pairs(by_index) do forget(source, tonumber(index), ids) end
end

-- The fields of a dead letter. They are what they were: whatever could not be taken apart is here as well.
local function remains(stored, id, why)
  local fields, first, known = {}, old(stored), named(stored)
  for at = 1, #stored, 2 do
    local name = stored[at]
    local over = name == 'narrowboat-expires' or (first and name == 'expires') or (not known and name == 'narrowboat-id')
      or name:find('^narrowboat%-dead%-')
    -- The only field is the body, and is not the only one any more.
    local bare = #stored == 2 and not OURS[name]
    if bare or not over then
      fields[#fields + 1] = bare and 'body' or name
      fields[#fields + 1] = stored[at + 1]
    end
  end
  if #fields > 2000 then  -- more than a script can add at once: packed into one, each text behind its size
    local packed = {}
    for at = 2001, #fields do packed[at - 2000] = struct.pack('>I4', #fields[at]) .. fields[at] end
    fields = {unpack(fields, 1, 2000)}
    fields[2001], fields[2002] = 'narrowboat-rest', table.concat(packed)
  end
  for name, value in pairs(why) do
    fields[#fields + 1] = 'narrowboat-dead-' .. name
    fields[#fields + 1] = value
  end
  if not known then
    fields[#fields + 1] = 'narrowboat-id'
    fields[#fields + 1] = id
  end
  return fields
end

local function bury(entry, why)
  if not dead.found then make(dead) end
  if dead.found ~= 'queue' then return false end
  local stored = redis.call('XRANGE', key_of(source, entry.index), entry.id, entry.id)[1]
  if not stored then return true end
  local attempts, reason = why:match('^(%d+) (.*)$')
  store(dead, 0, 0, remains(stored[2], entry.id, {reason = reason, attempts = attempts, origin = ARGV[3]}))
  ring(dead, 1)
  return true
end

local back = {}
local others, numbers = standing(6 + acks, 3, acks + 1)
for other, token in ipairs(others) do
  local entry, at = entry_of_token(token), 5 + acks + 3 * (numbers[other] - acks - 1)
  local act, value = ARGV[at], ARGV[at + 2]
  if act == 'd' then
    if KEYS[5] == KEYS[2] or bury(entry, value) then
      done[#done + 1] = entry
    else
      letters[numbers[other]] = 't'
      failed = true
      back[#back + 1] = entry
    end
  elseif act == 'r' then
    entry.attempt, entry.returns = entry.attempt - 1, (entry.returns or 0) + 1
    back[#back + 1] = entry
  elseif tonumber(value) > 0 then
    park(source, {entry}, NOW + tonumber(value))
    ring(source, 1)  -- whoever waits must hear when it comes back
  else
    back[#back + 1] = entry
  end
end
if #back > 0 then
  park(source, back)
  ring(source, #back)
end
if #done > 0 then remove(source, done) end
if #settled + #done > 0 then trim_sometimes(source) end
-- All is settled by now. The next receive tells of a message that is due and cannot be stored.
pcall(promote, source.topic or source)
ring_out()
return failed and table.concat(letters) or ''
