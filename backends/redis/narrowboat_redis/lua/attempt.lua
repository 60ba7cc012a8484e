-- Take a name, or queue for it. Idempotent for its owner.
-- KEYS held, queue, gone (of the owner), token, told, alive
-- ARGV owner, ttl in ms, " ttl mode limit label", provider ('' for a try: it leaves nothing behind), channel
-- Answers the token (text), or in how many ms to look again (number), or {mode, limit} of those who disagree, or nil when the
-- owner was withdrawn; {"foreign"} where something that is not ours stands under the name, {"token", it} where the last token
-- cannot be ours; 0 where there is more to be cleared away first. What is free is taken in attempt_free.lua.

local LOOK_AGAIN = 10000 -- ms; a notification comes long before

local micros, now = clock()
local keys = { held = KEYS[1], queue = KEYS[2], told = KEYS[5], alive = KEYS[6] }
local owner, ttl, rest, provider, channel = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local mode, size = string.match(rest, '^ %d+ (%a) (%d+) ')
local limit = tonumber(size)
local member = owner .. ' ' .. mode .. ' ' .. size .. ' ' .. provider

if redis.call('GET', KEYS[3]) == 'w' then
  return nil
end

-- It changes nothing. A server whose memory is full refuses it here, but would let us grant after any other write.
local full = redis.pcall('ZADD', keys.queue, 'XX', 0, '')
if type(full) ~= 'table' or not string.find(full.err, 'OOM', 1, true) then
  if type(full) == 'table' then
    return full
  end
  full = nil
end
go_on(keys.held)
local found, held, one, first = holders(keys.held, now)
if not found then
  return { 'foreign' }
end

local own = found[owner]
if own then -- the grant of an earlier attempt, whose answer was lost
  redis.call('HSET', keys.held, owner, record(own.token, now + ttl, rest))
  outlast(keys.held, ttl)
  return own.token
end

-- All contenders for one name have to agree about the kind of lock.
local function differs(kind, of)
  return kind and (kind == 's' or mode == 's') and (kind ~= mode or tonumber(of) ~= limit)
end

local function first_other()
  for _, each in ipairs(redis.call('ZRANGE', keys.queue, 0, 1)) do
    if each ~= member then
      return string.match(each, '^%S+ ([xrs]) (%d+) ')
    end
  end
end

local more = false

if one then
  if differs(one.mode, one.limit) then
    return { one.mode, text(one.limit) }
  end
elseif differs(first_other()) then
  more = walk(keys, channel, now, nil, 0, nil).more -- which drops the dead
  local kind, of = first_other()
  if not more and differs(kind, of) then
    return { kind, of }
  end
end

local waits = provider ~= ''
if waits then
  redis.call('HDEL', keys.told, member) -- it came: from now on it is waited for again
end
local state = more and { more = true } or walk(keys, channel, now, one and one.mode, held, waits and member or nil)
local goes = state.granted
if not goes and state.open and not state.place and (waits or state.length == 0) then
  goes = admitted(mode, limit, one and one.mode, held, state.ahead, state.writer)
end
if full and (goes or (waits and not redis.call('ZSCORE', keys.queue, member))) then
  return full -- who waits already waits on
end
if goes then
  local token, last = mint(KEYS[4], micros)
  if not token then
    return { 'token', last }
  end
  redis.call('HSET', keys.held, owner, record(token, now + ttl, rest))
  outlast(keys.held, ttl)
  return token
end

if waits then
  if not redis.call('ZSCORE', keys.queue, member) then
    local last = redis.call('ZRANGE', keys.queue, -1, -1, 'WITHSCORES')
    redis.call('ZADD', keys.queue, last[2] and tonumber(last[2]) + 1 or 1, member)
  end
  redis.call('ZADD', keys.alive, text(now + PATIENCE), provider)
  redis.call('PEXPIRE', keys.alive, PATIENCE)
  redis.call('PEXPIRE', keys.queue, 2 * PATIENCE)
end

if state.more then
  return 0
end

-- Only the next waiter has a reason to look when a lease ends, and only the waiters behind a claim when that ends.
-- A waiter that is far behind looks later, so that not all look at once.
local again = now + LOOK_AGAIN
if not state.place and not state.open then
  again = again + LOOK_AGAIN * (1 + tonumber(string.sub(redis.sha1hex(owner), 1, 4), 16) / 32768)
end
if first and first < again and (state.place or state.open) and admitted(mode, limit, nil, 0, state.ahead, state.writer) then
  again = first
end
if state.claim and state.claim < again then
  again = state.claim
end
return math.floor(again - now) + 1
