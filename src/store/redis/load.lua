#!lua flags=no-writes
-- Reads documents with the checkpoint they count under.
-- KEYS: checkpoint, index of runs, index of workers, then per entity: document, state.
-- ARGV: number of expected checkpoints, per one: '' or '1' and its six fields; per entity: index (2 or 3), id.
-- Reply: {'refused', field, value, …}, or per entity: {0} (new), {1, JSON, state or nil}, {2, why}, {3} (expired).
local found = redis.call('HMGET', KEYS[1], 'offset', 'last_record', 'digest', 'intent', 'projection_version', 'duplicates')
local exists = redis.call('EXISTS', KEYS[1]) == 1
local candidates = tonumber(ARGV[1])
local same = false
for i = 0, candidates - 1 do
  local at, equal = 2 + i * 7, exists
  if ARGV[at] == '' then
    equal = not exists
  else
    for field = 1, 6 do
      equal = equal and found[field] == ARGV[at + field]
    end
  end
  same = same or equal
end
if not same then
  local reply = redis.call('HGETALL', KEYS[1])
  table.insert(reply, 1, 'refused')
  return reply
end
local reply, arg = {}, 1 + candidates * 7
for key = 4, #KEYS, 2 do
  local json = redis.pcall('GET', KEYS[key])
  if type(json) == 'table' then
    reply[#reply + 1] = {2, 'document_corrupt'}
  elseif json then
    local state = redis.pcall('GET', KEYS[key + 1])
    if type(state) == 'table' then
      state = 'of another type'
    elseif state and string.sub(state, 1, 8) == 'expired ' then
      state = false
    end
    reply[#reply + 1] = {1, json, state}
  else
    local score = redis.call('ZSCORE', KEYS[tonumber(ARGV[arg + 1])], ARGV[arg + 2])
    if not score then
      reply[#reply + 1] = {0}
    elseif redis.pcall('GET', KEYS[key + 1]) == 'expired ' .. score then
      reply[#reply + 1] = {3}
    else
      reply[#reply + 1] = {2, 'missing_document'}
    end
  end
  arg = arg + 2
end
return reply
