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
local letters, failed = {}, false

-- The tokens at these positions that still stand, as entries; the others are noted as stale.
local function standing(positions)
  local entries, tokens = {}, {}
  for from = 1, #positions, 2000 do
    local asked = {}
    for at = from, math.min(from + 1999, #positions) do asked[#asked + 1] = ARGV[positions[at][1]] end
    for at, ends in ipairs(redis.call('ZMSCORE', leases, unpack(asked))) do
      local position = positions[from + at - 1]
      if ends and tonumber(ends) > NOW then
        local entry = entry_of_token(asked[at])
        entry.position = position
        entries[#entries + 1] = entry
        tokens[#tokens + 1] = asked[at]
        letters[position[2]] = '.'
      else
        letters[position[2]] = 's'
        failed = true
      end
    end
  end
  if #tokens > 0 then many('ZREM', leases, tokens) end
  return entries
end

local positions = {}
for at = 1, acks do positions[at] = {4 + at, at} end
local done = standing(positions)

local others, number = {}, acks
for at = 5 + acks, #ARGV, 3 do
  number = number + 1
  others[#others + 1] = {at + 1, number}
end

local dead
local function bury(entry, why)
  if not dead then
    dead = load(source.root .. '.dead', KEYS[5], 'queue', 'narrowboat')
    if not dead.found then make(dead) end
  end
  if dead.found ~= 'queue' then return false end
  local stored = redis.call('XRANGE', key_of(source, entry.index), entry.id, entry.id)[1]
  if not stored then return true end
  local attempts, reason = why:match('^(%d+) (.*)$')
  local fields, priority = {}, 0
  for at = 1, #stored[2], 2 do
    local name, value = stored[2][at], stored[2][at + 1]
    if name ~= 'expires' and not name:find('^narrowboat%-dead%-') then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  for name, value in pairs({reason = reason, attempts = attempts, origin = ARGV[3]}) do
    fields[#fields + 1] = 'narrowboat-dead-' .. name
    fields[#fields + 1] = value
  end
  if not field(fields, 'id') then
    fields[#fields + 1] = 'id'
    fields[#fields + 1] = entry.id
  end
  store(dead, priority, 0, fields)
  ring(dead, 1)
  return true
end

local back = {}
for _, entry in ipairs(standing(others)) do
  local at = entry.position[1]
  local act, value = ARGV[at - 1], ARGV[at + 1]
  if act == 'd' then
    if KEYS[5] == KEYS[2] or bury(entry, value) then
      done[#done + 1] = entry
    else
      letters[entry.position[2]] = 't'
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
if #done > 0 then
  remove(source, done)
  trim_sometimes(source)
end
promote(source.topic or source)
ring_out()
return failed and table.concat(letters) or ''
