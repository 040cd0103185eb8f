#!lua
-- Writes one batch, or nothing: all checks come before the first write. Without the allow-oom flag the server
-- refuses the whole script under memory pressure before it starts.
-- KEYS: owner, checkpoint, checkpoints, parked, index of runs, index of workers,
--       then a key per document, per state, per stream.
-- ARGV: owner, expected ('' or '1'), its four fields, events kept, history kept, mark ('' or '1'),
--       numbers of documents, states, streams, parked; names and values of the checkpoint's 12 fields;
--       per document: index (5 or 6), id, offset, JSON; per state: bytes;
--       per stream: number of events, then seq and JSON of each; per parked: subject, offset.
-- Reply: {'ok', foreign}, {'refused', field, value, …}, or {'owner', who}.
local found = redis.call('HMGET', KEYS[2], 'offset', 'last_record', 'digest', 'intent')
local same
if ARGV[2] == '' then
  same = redis.call('EXISTS', KEYS[2]) == 0
else
  same = found[1] == ARGV[3] and found[2] == ARGV[4] and found[3] == ARGV[5] and found[4] == ARGV[6]
end
if not same then
  local reply = redis.call('HGETALL', KEYS[2])
  table.insert(reply, 1, 'refused')
  return reply
end
local owner = redis.call('GET', KEYS[1])
if owner ~= ARGV[1] then
  return {'owner', owner or ''}
end
local function is(key, kind)
  local have = redis.call('TYPE', key).ok
  return have == kind or have == 'none'
end
local kinds = {[3] = 'stream', [4] = 'hash', [5] = 'zset', [6] = 'zset'}
for i, kind in pairs(kinds) do
  if not is(KEYS[i], kind) then
    return {'foreign', KEYS[i], kind}
  end
end
local documents, states, streams, parked = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local key, arg, foreign = 6, 37, 0

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
  local stream = KEYS[key]
  if not is(stream, 'stream') then
    redis.call('DEL', stream)
    foreign = foreign + 1
  end
  local events = tonumber(ARGV[arg])
  for _ = 1, events do
    -- A redo after a rollback finds entries that are there already: an id that is not above the last is skipped.
    redis.pcall('XADD', stream, ARGV[arg + 1] .. '-0', 'event', ARGV[arg + 2])
    arg = arg + 2
  end
  redis.call('XTRIM', stream, 'MAXLEN', '=', ARGV[7])
end
for _ = 1, parked do
  redis.call('HSET', KEYS[4], ARGV[arg + 1], ARGV[arg + 2])
  arg = arg + 2
end
redis.call('HSET', KEYS[2], unpack(ARGV, 14, 37))
if ARGV[9] ~= '' then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[8], '*', unpack(ARGV, 14, 37))
end
return {'ok', foreign}
