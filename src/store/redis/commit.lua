
-- Follows guard.lua: writes one batch. All checks come before the first write.
-- KEYS: as there, then a key per document, per state, per stream, per stream to cut, and document, state and stream of each
--       entity to remove.
-- ARGV: as there, events kept, history kept, mark ('' or '1'),
--       numbers of documents, states, streams, parked, cuts, removed, unparked;
--       names and values of the checkpoint's 12 fields;
--       per document: index (5 or 6), id, offset, JSON; per state: bytes;
--       per stream: number of events, then seq and JSON of each; per parked: subject, offset; per cut: seq;
--       per removed: index (5 or 6), id; per unparked: subject.
-- Reply: {'ok', foreign}.
local documents, states, streams, parked = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local cuts, removed, unparked = tonumber(ARGV[16]), tonumber(ARGV[17]), tonumber(ARGV[18])
local key, arg, foreign = 6, 42, 0

-- The last append of a stream trims it too: calls are what a stream costs, not bytes.
local function append(stream, id, event, trim)
  if trim then
    return redis.pcall('XADD', stream, 'MAXLEN', '=', ARGV[9], id, 'event', event)
  end
  return redis.pcall('XADD', stream, id, 'event', event)
end

-- From here on nothing may fail.
local pairs_of = {[5] = {}, [6] = {}}
for _ = 1, documents do
  key = key + 1
  redis.call('SET', KEYS[key], ARGV[arg + 4])
  local list = pairs_of[tonumber(ARGV[arg + 1])]
  list[#list + 1] = ARGV[arg + 3]
  list[#list + 1] = ARGV[arg + 2]
  arg = arg + 4
end
for index, list in pairs(pairs_of) do
  for from = 1, #list, 4000 do
    redis.call('ZADD', KEYS[index], unpack(list, from, math.min(from + 3999, #list)))
  end
end
for _ = 1, states do
  key, arg = key + 1, arg + 1
  redis.call('SET', KEYS[key], ARGV[arg])
end
for _ = 1, streams do
  key, arg = key + 1, arg + 1
  local stream, last = KEYS[key], arg + 2 * tonumber(ARGV[arg])
  for at = arg + 1, last, 2 do
    local id, event = ARGV[at] .. '-0', ARGV[at + 1]
    -- A redo after a rollback finds entries that are there already: an id that is not above the last is skipped.
    local added = append(stream, id, event, at + 1 == last)
    if type(added) == 'table' and string.find(added.err or '', 'WRONGTYPE', 1, true) then
      redis.call('DEL', stream)
      foreign = foreign + 1
      append(stream, id, event, at + 1 == last)
    elseif type(added) == 'table' and at + 1 == last then
      redis.call('XTRIM', stream, 'MAXLEN', '=', ARGV[9])
    end
  end
  arg = last
end
for _ = 1, parked do
  redis.call('HSET', KEYS[4], ARGV[arg + 1], ARGV[arg + 2])
  arg = arg + 2
end
for _ = 1, cuts do
  key, arg = key + 1, arg + 1
  local stream, seq = KEYS[key], ARGV[arg] .. '-0'
  if redis.call('TYPE', stream).ok == 'stream' then
    while true do
      local above = redis.call('XREVRANGE', stream, '+', '(' .. seq, 'COUNT', 1000)
      if #above == 0 then
        break
      end
      for i, entry in ipairs(above) do
        above[i] = entry[1]
      end
      redis.call('XDEL', stream, unpack(above))
    end
    -- A stream remembers its last id: without this, a lower one could not follow.
    redis.call('XSETID', stream, seq)
  end
end
for _ = 1, removed do
  redis.call('DEL', KEYS[key + 1], KEYS[key + 2], KEYS[key + 3])
  redis.call('ZREM', KEYS[tonumber(ARGV[arg + 1])], ARGV[arg + 2])
  key, arg = key + 3, arg + 2
end
for _ = 1, unparked do
  arg = arg + 1
  redis.call('HDEL', KEYS[4], ARGV[arg])
end
redis.call('HSET', KEYS[2], unpack(ARGV, 19, 42))
if ARGV[11] ~= '' then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[10], '*', unpack(ARGV, 19, 42))
end
return {'ok', foreign}
