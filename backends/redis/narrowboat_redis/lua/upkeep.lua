-- How entries move between the keys of a source, the work that is due there at a time, and how a source is made.
-- Stands behind messages.lua, where the keys are explained.

-- Entries by index and attempt, as XCLAIM wants them.
local function alike(entries, each)
  local batches = {}
  for _, entry in ipairs(entries) do
    local name = entry.index .. ':' .. entry.attempt
    local batch = batches[name]
    if not batch then
      batch = {index = entry.index, attempt = entry.attempt}
      batches[name] = batch
    end
    batch[#batch + 1] = entry.id
  end
  for _, batch in pairs(batches) do each(batch) end
end

-- When an entry expires, nil where never.
local function expiry(source, entry)
  if not (source.ttl or source.topic and source.topic.ttl) then return nil end
  local fields = entry.fields
  if not fields then
    local stored = redis.call('XRANGE', key_of(source, entry.index), entry.id, entry.id)[1]
    fields = stored and stored[2] or {}
  end
  return ends_of(fields)
end

-- Entries that were out go to `back` or, with `until_`, to `hold`. Their attempts stand in the group as well. What expires
-- is held until then at most, or it would hold up its key; what did so while it was out is noted for the sweep again.
local function park(source, entries, until_)
  if #entries == 0 then return end
  alike(entries, function(batch)
    for from = 1, #batch, 1000 do
      local command = {'XCLAIM', key_of(source, batch.index), source.group, PARKED, 0,
        unpack(batch, from, math.min(from + 999, #batch))}
      for _, option in ipairs({'RETRYCOUNT', batch.attempt, 'FORCE', 'JUSTID'}) do command[#command + 1] = option end
      as_group(source, batch.index, command)
    end
  end)
  local scored = {}
  for _, entry in ipairs(entries) do
    local ends = expiry(source, entry)
    if ends and ends <= NOW and alone(source, entry.index) then
      redis.call('ZADD', source.root .. ':ttl', text(ends), entry.index .. ':' .. entry.id)
    end
    scored[#scored + 1] = until_ and text(math.min(until_, ends or until_)) or -class_of(source, entry.index)
    scored[#scored + 1] = item_of(entry)
  end
  many('ZADD', source.root .. (until_ and ':hold' or ':back'), scored)
end

-- Keys stand before their items with a zero byte between, so that all of one key is a range.
local function before(key) return (key:gsub('[%z\1]', {['\0'] = '\1\1', ['\1'] = '\1\2'})) .. '\0' end

-- The message of a key whose turn it was has left: the next one is ready.
local function turn(source, key)
  if not source.ordered or key == '' then return end
  local start = before(key)
  local next_ = redis.call('ZRANGEBYLEX', source.root .. ':blocked', '[' .. start, '(' .. start:sub(1, -2) .. '\1',
    'LIMIT', 0, 1)[1]
  if not next_ then
    redis.call('SREM', source.root .. ':turns', key)
    return
  end
  redis.call('ZREM', source.root .. ':blocked', next_)
  redis.call('ZADD', source.root .. ':back', 0, next_:sub(#start + 1))
  ring(source, 1)
end

-- Entries of one stream, by their ids, are settled: where nobody else reads them, they are deleted.
local function forget(source, index, ids)
  local key = key_of(source, index)
  for from = 1, #ids, 2000 do
    local last = math.min(from + 1999, #ids)
    redis.call('XACK', key, source.group, unpack(ids, from, last))
    if alone(source, index) then redis.call('XDEL', key, unpack(ids, from, last)) end
  end
end

-- Entries leave for good.
local function remove(source, entries)
  local by_index = {}
  for _, entry in ipairs(entries) do
    local ids = by_index[entry.index]
    if not ids then
      ids = {}
      by_index[entry.index] = ids
    end
    ids[#ids + 1] = entry.id
  end
  for index, ids in pairs(by_index) do
    forget(source, index, ids)
    if source.ttl and alone(source, index) then
      for at, id in ipairs(ids) do ids[at] = index .. ':' .. id end
      many('ZREM', source.root .. ':ttl', ids)
    end
  end
  if source.ordered then
    for _, entry in ipairs(entries) do turn(source, entry.key) end
  end
end

-- What has expired and is not out is dropped, where nobody else reads the stream; elsewhere when it is claimed.
local function sweep(source)
  local over = redis.call('ZRANGEBYSCORE', source.root .. ':ttl', '-inf', text(NOW), 'LIMIT', 0, PAGE)
  for _, member in ipairs(over) do
    local index, id, ms, seq = member:match('^(1?%d):((%d+)%-(%d+))$')
    local ours = id and fits(ms) and fits(seq)
    local entry = {index = tonumber(index), id = id, key = '', attempt = 0}
    local key = ours and key_of(source, entry.index)
    local pending = ours and as_group(source, entry.index, {'XPENDING', key, source.group, id, id, 1})[1]
    if ours and not pending then
      redis.call('XDEL', key, id)
    elseif ours and pending[2] == PARKED then
      if source.ordered then
        local stored = redis.call('XRANGE', key, id, id)[1]
        entry.key = stored and own(stored[2], 'key') or ''
      end
      -- Nobody has ever had one that is blocked, whatever number of deliveries its group counts.
      local blocked = redis.call('ZREM', source.root .. ':blocked', before(entry.key) .. item_of(entry)) == 1
      entry.attempt = pending[4]
      local item = item_of(entry)
      local gone = redis.call('ZREM', source.root .. ':back', item) + redis.call('ZREM', source.root .. ':hold', item)
      if not blocked and gone == 0 then  -- it was returned, so it has a number that the group does not know
        local items = {}
        for returns = 1, 50 do
          entry.returns = returns
          items[returns] = item_of(entry)
        end
        gone = many('ZREM', source.root .. ':back', items) + many('ZREM', source.root .. ':hold', items)
      end
      if blocked then entry.key = '' end
      -- What is not found so is dropped when it is claimed: to look at all that waits would keep the server from others.
      if blocked or gone > 0 then remove(source, {entry}) end
    end
    redis.call('ZREM', source.root .. ':ttl', member)
  end
end

-- Do the work that is due in a source: delays and leases that have ended, messages that have expired.
local function tick(source)
  promote(source.topic or source)
  if source.topic then promote(source) end
  local now = text(NOW)
  local held = redis.call('ZRANGEBYSCORE', source.root .. ':hold', '-inf', now, 'LIMIT', 0, PAGE)
  if #held > 0 then
    local scored = {}  -- Stored before they leave `hold`: where that fails, they are still held.
    for _, item in ipairs(held) do
      local entry = entry_of(item)
      if entry then
        scored[#scored + 1] = -class_of(source, entry.index)
        scored[#scored + 1] = item
      end
    end
    if #scored > 0 then many('ZADD', source.root .. ':back', scored) end
    many('ZREM', source.root .. ':hold', held)
    ring(source, #held)
  end
  local ended = redis.call('ZRANGEBYSCORE', source.root .. ':lease', '-inf', now, 'LIMIT', 0, PAGE)
  if #ended > 0 then
    local entries = {}
    for _, token in ipairs(ended) do entries[#entries + 1] = entry_of_token(token) end
    park(source, entries)  -- as above
    many('ZREM', source.root .. ':lease', ended)
    ring(source, #ended)
  end
  if source.ttl then sweep(source) end
end

-- The entries of one stream that are pending with somebody, and the tokens of those that are leased; nil where one is not.
local function pending_of(source, index, ...)
  local found = redis.pcall('XPENDING', key_of(source, index), source.group, ...)
  local entries, tokens = {}, {}
  for at, pending in ipairs(found.err and {} or found) do
    local entry = {index = index, id = pending[1], attempt = pending[4], key = ''}
    if source.ordered then
      local stored = redis.call('XRANGE', key_of(source, index), entry.id, entry.id)[1]
      entry.key = stored and own(stored[2], 'key') or ''
    end
    entries[at], tokens[at] = entry, token_of(pending[2], entry)
  end
  local missing, leases = {}, source.root .. ':lease'
  for from = 1, #tokens, 2000 do
    local last = math.min(from + 1999, #tokens)
    for at, ends in ipairs(redis.call('ZMSCORE', leases, unpack(tokens, from, last))) do
      if not ends then missing[#missing + 1] = from + at - 1 end
    end
  end
  if #missing > 0 then  -- returned before, so its token has a number that the group does not know
    local by_id = {}
    for _, token in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
      local entry = entry_of_token(token)
      if entry then by_id[entry.index .. ':' .. entry.id] = {entry, token} end
    end
    for _, at in ipairs(missing) do
      local known = by_id[index .. ':' .. entries[at].id] or {entries[at], false}
      entries[at], tokens[at] = known[1], known[2]
    end
  end
  return entries, tokens, found
end

-- When something will be due in the source by itself; nil: nothing will.
local function next_change(source)
  local soonest
  for _, key in ipairs({source.root .. ':hold', source.root .. ':lease', (source.topic or source).root .. ':due'}) do
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
    first = tonumber(first or nil)
    if first and first < 1e16 and (not soonest or first < soonest) then soonest = first end  -- later is nobody's of ours
  end
  return soonest
end

-- Drop from a topic the entries that every group has acknowledged. Groups of other programs count as well.
local function trim(topic)
  for level in topic.used:gmatch('%d') do
    local key = key_of(topic, tonumber(level))
    local infos = redis.pcall('XINFO', 'GROUPS', key)
    local oldest
    for _, info in ipairs(infos.err and {} or infos) do
      local lowest
      if tonumber(field(info, 'pending')) > 0 then
        lowest = redis.call('XPENDING', key, field(info, 'name'))[2]
      else
        lowest = behind(field(info, 'last-delivered-id'))
      end
      if not oldest or place(lowest) < place(oldest) then oldest = lowest end
    end
    if oldest then redis.call('XTRIM', key, 'MINID', oldest) end
  end
  redis.call('HSET', topic.root .. ':meta', 'trimmed', text(NOW))
end

-- The same, a few times a second at most: it looks at every group.
local function trim_sometimes(source)
  if not source.topic then return end
  local before_ = noted(source.topic.root, 'trimmed', NOW)
  if not before_ or NOW - before_ > 100000 then trim(source.topic) end
end

-- Make what is not there. `properties`: lease, max, ordered, levels as texts; nil where a publish makes it.
local function make(source, properties)
  local meta = source.root .. ':meta'
  if source.topic then
    if not source.topic.found then
      redis.call('HSET', source.topic.root .. ':meta', 'kind', 'topic')
      source.topic.found = 'topic'
    end
    promote(source.topic)  -- what is due already was not for a group that begins now
    redis.call('SADD', source.topic.root .. ':groups', source.group)
    for level in source.topic.used:gmatch('%d') do make_group(key_of(source, tonumber(level)), source.group, '$') end
  elseif source.kind ~= 'topic' then
    make_group(source.stream, source.group, '0')
  end
  redis.call('HSET', meta, 'kind', source.kind)
  source.found = source.kind
  if source.kind == 'topic' then return end
  if not properties then
    redis.call('HSET', meta, 'declared', '0')
    return
  end
  redis.call('HSET', meta, 'declared', '1', 'lease', properties[1], 'max', properties[2], 'ordered', properties[3],
    'levels', properties[4])
  source.declared, source.lease_text, source.max, source.levels_text = true, properties[1], properties[2], properties[4]
  source.lease, source.levels, source.ordered = properties[1] * 1000000, tonumber(properties[4]), properties[3] == '1'
  source.flat = source.ordered or source.root:sub(-5) == '.dead'
end

-- Find or make what a consumer declares. nil: all is well; else the reply that says what is not.
local function declare(source, may_make, properties)
  local other, of = clash(source)
  if other then return {'taken', other, of or ''} end
  if not source.found then
    if not may_make then return {'missing'} end
    make(source, properties)
  elseif source.kind ~= 'topic' and not source.declared then
    -- It was made by a publish: a producer that starts first must not fix the consumers' properties.
    make(source, properties)
  elseif source.kind ~= 'topic' then
    local ordered = source.ordered and '1' or '0'
    -- Lease and max are each consumer's own, and what is stored of them is for those that ask for none.
    if ordered ~= properties[3] or source.levels_text ~= properties[4] then
      return {'differs', source.lease_text, source.max, ordered, source.levels_text}
    end
  end
end

-- An inbox lives for as long as its process sends heartbeats.
local function keep(source, ttl)
  for _, what in ipairs({':meta', ':lease', ':back', ':hold', ':ttl'}) do redis.call('PEXPIRE', source.root .. what, ttl) end
  redis.call('PEXPIRE', source.stream, ttl)
end
