-- The common part of all message scripts: the keys of a source, and how an entry moves between them.
--
-- Keys. KEYS[1] is the source's root, nb:m:{orders} or nb:m:{prices}.g; the hash tag is the path's first part, so that a
-- source, its dead letters, a topic and all its groups share one slot. KEYS[2] is its stream under the clear name, orders
-- (or prefix:orders), which other programs may read and add to. KEYS[3] and KEYS[4] are the same of the topic, for a
-- subscription. From a root:
--
--   <root>:meta    hash    kind, declared, lease (s), max, ordered, levels; used, own: levels that have a stream, as digits;
--                          last: id last given where several streams share one sequence; ttl: 1 once anything had one
--   <root>:1 .. :9 stream  what was published with that priority
--   <root>:due     zset    published with a delay: number and packed entry, by due time
--   <root>:lease   zset    handed out: one token for each claim, by the end of its lease. The truth about whose it is
--   <root>:back    zset    ready again (or staged): items, by level, then by id
--   <root>:hold    zset    nacked with a delay: items, by due time
--   <root>:blocked zset    ordered sources: items behind an unsettled one of their key, by key and id
--   <root>:turns   set     ordered sources: keys of which one is ready or out
--   <root>:ttl     zset    what has a ttl, by its end (streams of one reader only)
--   <root>:ids     zset    ids that were seen, until their window ends; gone with it
--   <root>:groups  set     of a topic: its groups
--
-- Each level's stream has a consumer group for each reader. What is out is pending there with its consumer and number of
-- deliveries; what lies in back, hold or blocked is pending with the consumer "-". A stream is known by its index: 0 to 9
-- by priority, 10 to 19 those of a subscription alone, to which its dead letters are redriven.
--
--   item   <place>:<index>:<attempts>:<key>             place sorts as the id does
--   token  <consumer>:<index>:<attempt>:<id>:<key>      key only in ordered sources
--
-- What was returned uncounted has a number of returns behind its attempts, 1.2: or the next claim had the same token.
--
-- All times are microseconds of the server's clock.

if redis.replicate_commands then redis.replicate_commands() end  -- servers before 7 send the script itself otherwise

local clock = redis.call('TIME')
local NOW = clock[1] * 1000000 + clock[2]
local PARKED, ALL, PAGE = '-', 1000000000, 500
local rings = {}

-- Numbers become text by hand: Lua's own way keeps 14 digits.
local function text(number) return string.format('%.0f', number) end

local function ring(source, count)
  if count > 0 then rings[source.root] = (rings[source.root] or 0) + count end
end

-- A failed notification does no harm: a user without the right to publish on the channel must not lose a stored message.
local function ring_out()
  for root, count in pairs(rings) do redis.pcall('PUBLISH', root, text(count)) end
end

local function place(id)
  local ms, seq = id:match('^(%d+)-(%d+)$')
  return string.char(96 + #ms) .. ms .. ':' .. string.char(96 + #seq) .. seq
end

-- Attempts, with the number of returns where there were any.
local function claims_of(entry)
  if entry.returns and entry.returns > 0 then return entry.attempt .. '.' .. entry.returns end
  return entry.attempt
end

local function item_of(entry)
  return place(entry.id) .. ':' .. entry.index .. ':' .. claims_of(entry) .. ':' .. entry.key
end

-- Whether the digits are a half of a stream id: the server takes any 64 bits, and another program may choose them.
local function fits(digits) return #digits < 20 or #digits == 20 and digits <= '18446744073709551615' end

-- Nil for a foreign one, which the caller drops: otherwise every call would meet it again.
local function entry_of(item)
  local ms, seq, index, attempt, returns, key = item:match('^%l(%d+):%l(%d+):(1?%d):(%d+)%.?(%d*):(.*)$')
  if not ms or not fits(ms) or not fits(seq) or #attempt > 9 then return nil end
  return {id = ms .. '-' .. seq, index = tonumber(index), attempt = tonumber(attempt), returns = tonumber(returns), key = key}
end

local function entries_of(items)
  local entries = {}
  for _, item in ipairs(items) do entries[#entries + 1] = entry_of(item) end
  return entries
end

local function token_of(consumer, entry)
  return consumer .. ':' .. entry.index .. ':' .. claims_of(entry) .. ':' .. entry.id .. ':' .. entry.key
end

-- Nil as above.
local function entry_of_token(token)
  local index, attempt, returns, ms, seq, key = token:match('^[^:]*:(1?%d):(%d+)%.?(%d*):(%d+)%-(%d+):(.*)$')
  if not ms or not fits(ms) or not fits(seq) or #attempt > 9 then return nil end
  return {id = ms .. '-' .. seq, index = tonumber(index), attempt = tonumber(attempt), returns = tonumber(returns), key = key}
end

local function field(fields, name)
  for at = 1, #fields, 2 do
    if fields[at] == name then return fields[at + 1] end
  end
end

-- What the first version called its fields, and whether an entry is one of its: id, body and at in front, nothing else behind.
-- The same name in any other entry is another program's.
local OLD, OURS = {}, {}
for name in ('key correlation type priority headers reply expires'):gmatch('%a+') do
  OLD[name], OURS['narrowboat-' .. name] = true, true
end
for name in ('id at rest left'):gmatch('%a+') do OURS['narrowboat-' .. name] = true end

local function old(fields)
  if fields[1] ~= 'id' or fields[3] ~= 'body' or fields[5] ~= 'at' or not fields[6]:find('^[%d.e+-]+$') then return false end
  for at = 7, #fields, 2 do
    if not OLD[fields[at]] and fields[at]:sub(1, 11) ~= 'narrowboat-' then return false end
  end
  return true
end

-- A field of ours: key, expires.
local function own(fields, name)
  return field(fields, 'narrowboat-' .. name) or (old(fields) and field(fields, name)) or nil
end

-- Whether the entry's id field is ours: it begins with id and body, and all that follows is ours as well.
local function named(fields)
  local given = field(fields, 'narrowboat-id')
  if given then return given ~= '' end
  if fields[2] == '' then return false end
  if old(fields) then return true end
  for at = 5, #fields, 2 do
    if fields[at]:sub(1, 11) ~= 'narrowboat-' then return false end
  end
  return fields[1] == 'id' and fields[3] == 'body'
end

-- Microseconds; nil where it never expires. In the first version's field seconds and milliseconds are another program's.
local function ends_of(fields)
  local value = own(fields, 'expires')
  if not value or #value > 16 or not value:find('^%d+$') then return nil end
  return (tonumber(value) >= 1e14 or field(fields, 'narrowboat-expires')) and tonumber(value) or nil
end

-- A command with any number of members: what Lua unpacks at once is limited.
local function many(command, key, members)
  local total = 0
  for from = 1, #members, 2000 do
    total = total + redis.call(command, key, unpack(members, from, math.min(from + 1999, #members)))
  end
  return total
end

-- Which field of meta is none of ours. Told before anything is changed: it would fail half-way.
local function damaged(root, fields)
  for _, each in ipairs({{'kind', '^%l+$'}, {'lease', '^[%d.e+-]+$'}, {'max', '^%d+$'}, {'levels', '^%d$'}, {'used', '^%d+$'},
    {'own', '^%d*$'}}) do
    local value = fields[each[1]]
    if #value > 20 or not value:find(each[2]) then error('DAMAGED ' .. root .. ':meta ' .. each[1], 0) end
  end
  error('DAMAGED ' .. root .. ':meta lease', 0)
end

-- A number of meta that only this notes, and that is no worse for being forgotten: nil where it cannot be one.
local function noted(root, name, most)
  local number = tonumber(redis.call('HGET', root .. ':meta', name) or '')
  return number and number >= 0 and number <= most and number or nil
end

local function load(root, stream, kind, group)
  local meta = redis.call('HMGET', root .. ':meta', 'kind', 'declared', 'lease', 'max', 'ordered', 'levels', 'used', 'own',
    'last', 'ttl')
  local source = {root = root, stream = stream, kind = kind, group = group, found = meta[1], declared = meta[2] == '1',
    lease_text = meta[3] or '30', max = meta[4] or '5', ordered = meta[5] == '1', levels_text = meta[6] or '0',
    used = meta[7] or '0', own = meta[8] or '', ttl = meta[10] == '1', first = 0}
  local texts = {meta[1] or 'queue', source.lease_text, source.max, source.levels_text, source.used, source.own}
  local all = table.concat(texts, ' ')
  local lease = tonumber(source.lease_text)
  if #all > 80 or not all:find('^%l+ [%d.e+-]+ %d+ %d %d+ %d*$') or not (lease and lease >= 0 and lease < 1e10) then
    damaged(root, {kind = meta[1] or 'queue', lease = source.lease_text, max = source.max, levels = source.levels_text,
      used = source.used, own = source.own})
  end
  if meta[9] and #meta[9] < 40 and meta[9]:find('^%d+-%d+$') then source.last = meta[9] end
  source.lease = lease * 1000000
  source.levels = source.declared and tonumber(source.levels_text) or ALL
  source.flat = source.ordered or root:sub(-5) == '.dead'
  return source
end

local function open(kind, group)
  local source = load(KEYS[1], KEYS[2], kind, group)
  if kind == 'subscription' then
    source.topic = load(KEYS[3], KEYS[4], 'topic', '')
    source.first = 10
  end
  return source
end

-- The kind of the source that has this name already, and its name; nil if there is none.
local function clash(source)
  if source.found and source.found ~= source.kind then return source.found end
  local topic = source.topic
  if topic and topic.found and topic.found ~= 'topic' then return topic.found, 'topic' end
end

local function key_of(source, index)
  local owner = source
  if index >= 10 then index = index - 10 elseif source.topic then owner = source.topic end
  return index == 0 and owner.stream or owner.root .. ':' .. index
end

-- Whether no other group reads that stream. If so, settled entries are deleted; otherwise the topic is trimmed.
local function alone(source, index) return not source.topic or index >= 10 end

local function class_of(source, index)
  return source.flat and 0 or math.min(index % 10, source.levels)
end

-- The indexes of its streams by class, and the classes from high to low.
local function classes(source)
  local found, order = {}, {}
  local function note(index)
    local class = class_of(source, index)
    if not found[class] then
      found[class] = {}
      order[#order + 1] = class
    end
    found[class][#found[class] + 1] = index
  end
  for level in (source.topic or source).used:gmatch('%d') do note(tonumber(level)) end
  if source.topic then
    for level in source.own:gmatch('%d') do note(10 + level) end
  end
  table.sort(order, function(one, other) return one > other end)
  return found, order
end

local function make_group(key, group, from)
  local made = redis.pcall('XGROUP', 'CREATE', key, group, from, 'MKSTREAM')
  if type(made) == 'table' and made.err and not made.err:find('BUSYGROUP', 1, true) then
    redis.call('XGROUP', 'CREATE', key, group, from, 'MKSTREAM')  -- raises the server's own error
  end
end

-- A command of a group. Where somebody deleted the stream, the group is made anew: what is in it now is all new.
local function as_group(source, index, command)
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then
    make_group(key_of(source, index), source.group, '0')
    answer = redis.call(unpack(command))
  end
  return answer
end

local function groups_of(source)
  if source.kind == 'topic' then return redis.call('SMEMBERS', source.root .. ':groups') end
  return {source.group}
end

-- Make the stream of a level, with every group that reads it.
local function widen(source, level)
  local name = source.topic and 'own' or 'used'
  if source[name]:find(level, 1, true) then return end
  source[name] = source[name] .. level
  redis.call('HSET', source.root .. ':meta', name, source[name])
  for _, group in ipairs(groups_of(source)) do make_group(key_of(source, source.first + level), group, '0') end
end

local function last_id(key)
  local info = redis.pcall('XINFO', 'STREAM', key)
  if info.err then return '0-0' end
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then return info[at + 1] end
  end
end

-- The next number, for digits of any length: Lua's own numbers are exact up to 2^53 only.
local function plus_one(digits)
  local head, nines = digits:match('^(.-)(9*)$')
  if head == '' then head = '0' end
  return head:sub(1, -2) .. text(head:sub(-1) + 1) .. nines:gsub('9', '0')
end

-- The id right behind another one. The last id of all has none, and is returned itself.
local function behind(id)
  local ms, seq = id:match('^(%d+)-(%d+)$')
  local next_ = plus_one(seq)
  if fits(next_) then return ms .. '-' .. next_ end
  ms = plus_one(ms)
  return fits(ms) and ms .. '-0' or id
end

local function next_id(last)
  local now = math.floor(NOW / 1000)
  if now > tonumber(last:match('^%d+')) then return text(now) .. '-0' end
  return behind(last)
end

-- Where several streams make up one source, they share one sequence of ids, so that they can be merged again.
local function add(source, index, fields)
  local key = key_of(source, index)
  if index >= 10 then  -- behind all that the topic has
    local last = last_id(key)
    for level in source.topic.used:gmatch('%d') do
      local other = last_id(key_of(source, tonumber(level)))
      if place(other) > place(last) then last = other end
    end
    return redis.call('XADD', key, next_id(last), unpack(fields))
  end
  if #source.used == 1 then return redis.call('XADD', key, '*', unpack(fields)) end
  local id = next_id(source.last or last_id(source.stream))
  local added = redis.pcall('XADD', key, id, unpack(fields))
  if type(added) == 'table' and added.err then  -- another program added to that stream meanwhile
    id = next_id(last_id(key))
    redis.call('XADD', key, id, unpack(fields))
  end
  source.last = id
  redis.call('HSET', source.root .. ':meta', 'last', id)
  return id
end

-- Store an available message. False: a topic without groups drops it.
local function store(source, priority, expires, fields)
  if source.kind == 'topic' then
    source.listeners = source.listeners or redis.call('SCARD', source.root .. ':groups')
    if source.listeners == 0 then return false end
  end
  local level = class_of(source, math.min(priority, 9))
  widen(source, level)
  local index = source.first + level
  if expires > 0 then
    -- It changes nothing. A key of another type fails here, before the entry is in the stream.
    redis.call('ZADD', source.root .. ':ttl', 'XX', 0, '')
    fields[#fields + 1] = 'narrowboat-expires'
    fields[#fields + 1] = text(expires)
    if not source.ttl then
      source.ttl = true
      redis.call('HSET', source.root .. ':meta', 'ttl', '1')
    end
  end
  local id = add(source, index, fields)
  if expires > 0 and source.kind ~= 'topic' then
    redis.call('ZADD', source.root .. ':ttl', text(expires), index .. ':' .. id)
  end
  return true
end

-- A delayed message: priority, expiry and fields. What another program put among them is a message as it is.
local function due_of(member)
  local whole, packed = pcall(cmsgpack.unpack, member:sub(17))
  local fields = whole and type(packed) == 'table' and packed[3]
  if type(fields) ~= 'table' or #fields == 0 or #fields % 2 == 1 or #fields > 7000 then return 0, 0, {'body', member} end
  local priority, expires = tonumber(packed[1]) or -1, tonumber(packed[2]) or -1
  if not (priority >= 0 and priority <= 9 and priority % 1 == 0 and expires >= 0 and expires < 1e17) then
    return 0, 0, {'body', member}
  end
  for _, each in ipairs(fields) do
    if type(each) ~= 'string' then return 0, 0, {'body', member} end
  end
  return priority, expires, fields
end

-- Move the messages that are due into the stream, in the order of their times.
local function promote(source)
  local key = source.root .. ':due'
  for _ = 1, 40 do
    local due = redis.call('ZRANGEBYSCORE', key, '-inf', text(NOW), 'LIMIT', 0, PAGE)
    if #due == 0 then return end
    local moved = {}
    local fine, why = pcall(function()
      for at, member in ipairs(due) do
        local priority, expires, fields = due_of(member)
        if expires == 0 or expires > NOW then store(source, priority, expires, fields) end
        moved[at] = member
      end
    end)
    if #moved > 0 then many('ZREM', key, moved) end  -- also where a later one fails: each call would store them again
    if not fine then
      -- Another program took the last id that there is. A publish tells so; what is there is still received.
      local told = type(why) == 'table' and why.err or tostring(why)
      if told:find('exhausted the last possible ID', 1, true) then return end
      error(why, 0)
    end
    ring(source, #due)
  end
end
