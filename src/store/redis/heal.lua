#!lua
-- Puts entities right beside whoever projects; all checks come before the first write.
-- KEYS: owner, checkpoint, parked, index of runs, index of workers, then per entity: document, state, stream.
-- ARGV: own lease or '', the projection version seen or '', move ('' or '1'), the expected checkpoint's six fields, names
--       and values of its 12 fields, events kept, number of entities;
--       per entity: index (4 or 5), id, seen ('absent', 'unreadable', 'document'), JSON seen, state seen ('' or '1' and
--       the bytes), place in the index seen or '', unpark (subject or ''),
--       becomes ('' or '1'), offset, JSON, state ('' or '1' and the bytes), number of events, then seq and JSON of each.
-- Reply: {'ok', 1 (done) or 0 (changed) per entity}, {'refused', field, value, …}, or {'owner', who}.
local function refused()
  local reply = redis.call('HGETALL', KEYS[2])
  table.insert(reply, 1, 'refused')
  return reply
end
local owner = redis.call('GET', KEYS[1])
local operator = owner and string.sub(owner, 1, 9) == 'operator/'
if operator and owner ~= ARGV[1] or ARGV[1] ~= '' and owner ~= ARGV[1] then
  return {'owner', owner or ''}
end
local found = redis.call('HMGET', KEYS[2], 'offset', 'last_record', 'digest', 'intent', 'projection_version', 'duplicates')
local intent = found[4] or ''
if string.sub(intent, 1, 7) == 'rewind ' or string.sub(intent, 1, 8) == 'restore ' or (found[5] or '') ~= ARGV[2] then
  return refused()
end
local moves = ARGV[3] ~= ''
for i = 1, moves and 6 or 0 do
  if found[i] ~= ARGV[i + 3] then
    return refused()
  end
end
for i, kind in pairs({[3] = 'hash', [4] = 'zset', [5] = 'zset'}) do
  local have = redis.call('TYPE', KEYS[i]).ok
  if have ~= kind and have ~= 'none' then
    return {'foreign', KEYS[i], kind}
  end
end
local kept, entries = tonumber(ARGV[34]), tonumber(ARGV[35])
local function same(key, arg)
  local score = redis.call('ZSCORE', KEYS[tonumber(ARGV[arg + 1])], ARGV[arg + 2])
  local at = score and math.max(0, math.floor(tonumber(score)))
  if at ~= (ARGV[arg + 7] ~= '' and tonumber(ARGV[arg + 7])) then
    return false
  end
  local json = redis.pcall('GET', KEYS[key + 1])
  local seen = type(json) == 'table' and 'unreadable' or json and 'document' or 'absent'
  if seen ~= ARGV[arg + 3] or seen == 'document' and json ~= ARGV[arg + 4] then
    return false
  end
  if seen ~= 'document' then
    return true
  end
  local state = redis.pcall('GET', KEYS[key + 2])
  if type(state) == 'table' then
    state = 'of another type'
  elseif state and string.sub(state, 1, 8) == 'expired ' then
    state = false
  end
  return state == (ARGV[arg + 5] ~= '' and ARGV[arg + 6])
end
local places, reply, key, arg, done = {}, {'ok'}, 5, 35, 0
for i = 1, entries do
  places[i] = {key, arg}
  reply[i + 1] = same(key, arg) and 1 or 0
  done = done + reply[i + 1]
  key, arg = key + 3, arg + 14 + 2 * tonumber(ARGV[arg + 14])
end
if moves and done < entries then
  for i = 1, entries do
    reply[i + 1] = 0
  end
  return reply
end
if done == 0 then
  return reply
end

-- From here on nothing may fail.
for i = 1, entries do
  local key, arg = places[i][1], places[i][2]
  local document, state, stream = KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]
  local index, id = KEYS[tonumber(ARGV[arg + 1])], ARGV[arg + 2]
  if reply[i + 1] == 0 then
    document = nil
  elseif ARGV[arg + 9] == '' then
    redis.call('DEL', document, state, stream)
    redis.call('ZREM', index, id)
  else
    redis.call('SET', document, ARGV[arg + 11])
    if ARGV[arg + 12] == '' then
      redis.call('DEL', state)
    else
      redis.call('SET', state, ARGV[arg + 13])
    end
    redis.call('ZADD', index, ARGV[arg + 10], id)
    if kept > 0 then
      redis.call('DEL', stream)
      for event = 1, tonumber(ARGV[arg + 14]) do
        local at = arg + 13 + 2 * event
        redis.call('XADD', stream, ARGV[at] .. '-0', 'event', ARGV[at + 1])
      end
    end
  end
  if document and ARGV[arg + 8] ~= '' then
    redis.call('HDEL', KEYS[3], ARGV[arg + 8])
  end
end
if moves then
  redis.call('HSET', KEYS[2], unpack(ARGV, 10, 33))
end
if owner and not operator then
  redis.call('DEL', KEYS[1])
end
return reply
