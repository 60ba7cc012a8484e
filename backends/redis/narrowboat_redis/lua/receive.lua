-- Claim the messages that are due, for one consumer. Keys: see messages.lua.
--
-- ARGV: kind, group, "1" where it may be made, lease, max, ordered, levels, consumer, limit, inbox ttl (ms), most bytes
--
-- Returns {"ok", now, when something is due next or "", sizes, bytes, the field names of each shape}: for each
-- message `sizes` has its shape, attempt, the sizes of token, id in the stream and of each field's value, as big-endian
-- 32-bit numbers, and `bytes` has these one behind the other. One text is read ten times as fast as a tree of replies.
-- A shape's names stand behind their sizes; the shape "" is id and body. What is more than the bytes that may be answered goes
-- back; an entry that is more by itself is answered as its size alone, in a field `narrowboat-left`.
-- Or {"missing"}, {"taken", by what, of whom}, {"differs", what is stored}.

local source = open(ARGV[1], ARGV[2])
local consumer, limit = ARGV[8], tonumber(ARGV[9])
local refused = declare(source, ARGV[3] == '1', {ARGV[4], ARGV[5], ARGV[6], ARGV[7]})
if refused then return refused end
tick(source)

-- Unread entries of one stream, from now on pending with `reader`.
local function read_raw(index, count, reader)
  local key = key_of(source, index)
  local command = {'XREADGROUP', 'GROUP', source.group, reader, 'COUNT', count, 'STREAMS', key, '>'}
  local found = as_group(source, index, command)
  return found and found[1][2] or {}
end

local function read(index, count, reader)
  local entries = {}
  for at, entry in ipairs(read_raw(index, count, reader)) do
    entries[at] = {index = index, id = entry[1], fields = entry[2], attempt = 1, key = ''}
  end
  return entries
end

-- Unread ones of several streams that count as one, merged by their ids.
local function read_merged(indexes, count, reader)
  if #indexes == 1 then return read(indexes[1], count, reader) end
  local unread = {}
  for _, index in ipairs(indexes) do
    local key = key_of(source, index)
    local infos = redis.pcall('XINFO', 'GROUPS', key)
    local last = '0-0'
    for _, info in ipairs(infos.err and {} or infos) do
      if field(info, 'name') == source.group then last = field(info, 'last-delivered-id') end
    end
    for _, entry in ipairs(redis.call('XRANGE', key, '(' .. last, '+', 'COUNT', count)) do
      unread[#unread + 1] = {index, place(entry[1])}
    end
  end
  local function earlier(one, other) return one[2] < other[2] end
  table.sort(unread, earlier)
  local counts, entries = {}, {}
  for at = 1, math.min(count, #unread) do counts[unread[at][1]] = (counts[unread[at][1]] or 0) + 1 end
  for index, some in pairs(counts) do
    for _, entry in ipairs(read(index, some, reader)) do entries[#entries + 1] = entry end
  end
  table.sort(entries, function(one, other) return place(one.id) < place(other.id) end)
  return entries
end

-- Ordered sources: what is unread is sorted into those whose turn it is and those that wait behind another of their key.
local function stage(indexes, count)
  for _ = 1, 4 do
    if redis.call('ZCARD', source.root .. ':back') >= count then return end
    local entries = read_merged(indexes, PAGE, PARKED)
    local ready, blocked = {}, {}
    for _, entry in ipairs(entries) do
      entry.attempt, entry.key = 0, own(entry.fields, 'key') or ''
      if entry.key == '' or redis.call('SADD', source.root .. ':turns', entry.key) == 1 then
        ready[#ready + 1] = entry
      else
        blocked[#blocked + 1] = 0
        blocked[#blocked + 1] = before(entry.key) .. item_of(entry)
      end
    end
    park(source, ready)
    if #blocked > 0 then many('ZADD', source.root .. ':blocked', blocked) end
    if #entries < PAGE then return end
  end
end

-- Those that are ready again.
local function take_back(class, count)
  local items = redis.call('ZRANGEBYSCORE', source.root .. ':back', -class, -class, 'LIMIT', 0, count)
  if #items == 0 then return {} end
  many('ZREM', source.root .. ':back', items)
  local wanted, found, entries = entries_of(items), {}, {}
  alike(wanted, function(batch)
    for from = 1, #batch, 1000 do
      local command = {'XCLAIM', key_of(source, batch.index), source.group, consumer, 0,
        unpack(batch, from, math.min(from + 999, #batch))}
      for _, option in ipairs({'RETRYCOUNT', batch.attempt + 1, 'FORCE'}) do command[#command + 1] = option end
      for _, entry in ipairs(as_group(source, batch.index, command)) do
        if entry and entry[1] then found[batch.index .. ':' .. entry[1]] = entry[2] end
      end
    end
  end)
  for _, entry in ipairs(wanted) do
    entry.fields = found[entry.index .. ':' .. entry.id]
    if entry.fields then
      entry.attempt = entry.attempt + 1
      entries[#entries + 1] = entry
    else
      remove(source, {entry})  -- somebody deleted it from the stream
    end
  end
  return entries
end

local claimed, fresh, dropped = {}, {}, 0  -- fresh: the index of those that are as they were read
local weight, weights, most = 0, {}, tonumber(ARGV[11])  -- weights: of the fields of each that is claimed

-- How many to read next: few until their size is known, so that large ones do not fill the server's memory.
local function step()
  local share = #claimed == 0 and 8 or math.ceil((most - weight) / math.max(weight / #claimed, 1))
  return math.max(1, math.min(share, limit - #claimed))
end

-- Of the one that is claimed next.
local function weigh(fields)
  local bytes = 0
  for at = 1, #fields do bytes = bytes + #fields[at] end
  weights[#claimed + 1] = bytes
  weight = weight + bytes
end

local function admit(entries)
  local expired = {}
  for _, entry in ipairs(entries) do
    local ends = expiry(source, entry)
    if ends and ends <= NOW then
      expired[#expired + 1] = entry
    else
      weigh(entry.fields)
      claimed[#claimed + 1] = entry
    end
  end
  if #expired > 0 then
    remove(source, expired)
    dropped = dropped + #expired
  end
  return #entries
end

if source.topic and source.topic.ttl then source.ttl = true end
local by_class, order = classes(source)
for _, class in ipairs(order) do
  if source.ordered then stage(by_class[class], limit) end
  while #claimed < limit and weight < most do
    local came = admit(take_back(class, step()))
    if came == 0 and not source.ordered then
      if #by_class[class] == 1 and not source.ttl then  -- the common case costs no table for each
        local index = by_class[class][1]
        for _, entry in ipairs(read_raw(index, step(), consumer)) do
          weigh(entry[2])
          claimed[#claimed + 1] = entry
          fresh[#claimed] = index
          came = came + 1
        end
      else
        came = came + admit(read_merged(by_class[class], step(), consumer))
      end
    end
    if came == 0 then break end
  end
end

local answer, shapes = {'ok', text(NOW), '', '', ''}, {}
local lately = {}  -- by number, the last fields with it and their shape

-- The number of the shape of these fields. Names are told apart by their sizes, whatever they are made of.
local function shape_of(fields)
  local last = lately[#fields]
  local same = last ~= nil
  for at = 1, same and #fields or 0, 2 do
    if last[1][at] ~= fields[at] then
      same = false
      break
    end
  end
  if same then return last[2] end
  local names = {}
  for at = 1, #fields, 2 do names[#names + 1] = struct.pack('>I4', #fields[at]) .. fields[at] end
  local shape = table.concat(names)
  if not shapes[shape] then
    answer[#answer + 1] = shape
    shapes[shape] = #answer - 6
  end
  lately[#fields] = {fields, shapes[shape]}
  return shapes[shape]
end

if #claimed > 0 then
  local until_ = text(NOW + ARGV[4] * 1000000)
  local leases, sizes, bytes, formats, heads, bare = {}, {}, {}, {}, {}, nil
  local pack, held, filled, total, rest = struct.pack, 0, 0, 0, {}
  for at, entry in ipairs(claimed) do
    local fields, id, attempt, token = entry.fields, entry.id, entry.attempt
    if fresh[at] then
      id, fields, attempt = entry[1], entry[2], 1
      local index = fresh[at]
      if not heads[index] then heads[index] = consumer .. ':' .. index .. ':1:' end
      token = heads[index] .. id .. ':'
    else
      if source.ordered and entry.key == '' then entry.key = own(fields, 'key') or '' end
      token = token_of(consumer, entry)
    end
    local plain = #fields == 4 and fields[1] == 'id' and fields[3] == 'body'
    local size = #token + weights[at]
    if total > 0 and total + size > most then
      for number = at, #claimed do
        local other = claimed[number]
        if fresh[number] then other = {index = fresh[number], id = other[1], attempt = 1, key = ''} end
        other.attempt, other.returns = other.attempt - 1, (other.returns or 0) + 1
        rest[#rest + 1] = other
      end
      break
    end
    total = total + math.min(size, most)
    if size > most then fields, plain = {'narrowboat-left', text(size)}, false end
    leases[held + 1], leases[held + 2] = until_, token
    held = held + 2
    bytes[filled + 1], bytes[filled + 2] = token, id
    if plain then
      if not bare then
        answer[#answer + 1] = ''
        bare = #answer - 6
      end
      local name, body = fields[2], fields[4]
      bytes[filled + 3], bytes[filled + 4] = name, body
      filled = filled + 4
      sizes[at] = pack('>I4I4I4I4I4I4', bare, attempt, #token, #id, #name, #body)
    else
      local half, values = #fields / 2, {shape_of(fields), attempt, #token, #id}
      for number = 1, half do
        values[4 + number] = #fields[2 * number]
        bytes[filled + 2 + number] = fields[2 * number]
      end
      filled = filled + 2 + half
      if half <= 100 then
        formats[half] = formats[half] or '>' .. string.rep('I4', 4 + half)
        sizes[at] = pack(formats[half], unpack(values))
      else  -- more than can be unpacked at once
        for number = 1, #values do values[number] = pack('>I4', values[number]) end
        sizes[at] = table.concat(values)
      end
    end
  end
  many('ZADD', source.root .. ':lease', leases)
  park(source, rest)
  if dropped > 0 then trim_sometimes(source) end
  if source.kind == 'inbox' then keep(source, ARGV[10]) end
  ring_out()
  answer[4], answer[5] = table.concat(sizes), table.concat(bytes)
  return answer
end

-- There is no message to deliver: use the time to clean up. Otherwise the names of dead consumers would pile up.
local swept = noted(source.root, 'swept', NOW)
if not swept or NOW - swept > 10000000 then
  redis.call('HSET', source.root .. ':meta', 'swept', text(NOW))
  for _, class in ipairs(order) do
    for _, index in ipairs(by_class[class]) do
      local key = key_of(source, index)
      -- Pending and leased to nobody: read by hand, or left by an older state of the data. It comes back.
      local idle = math.ceil(source.lease / 1000) + 1000
      local entries, tokens, pending = pending_of(source, index, 'IDLE', idle, '-', '+', 1000)
      local lost = {}
      for at, entry in ipairs(entries) do
        if pending[at][2] ~= PARKED and not tokens[at] then lost[#lost + 1] = entry end
      end
      park(source, lost)
      for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', key, source.group)) do
        local name = field(info, 'name')
        if name ~= PARKED and name ~= consumer and field(info, 'pending') == 0 and field(info, 'idle') > 60000 then
          redis.call('XGROUP', 'DELCONSUMER', key, source.group, name)
        end
      end
    end
  end
end
trim_sometimes(source)
if source.kind == 'inbox' then keep(source, ARGV[10]) end
local change = next_change(source)
ring_out()
return {'ok', text(NOW), change and text(change) or ''}
