#!lua
-- Takes documents and streams away; what stands in the state's place tells that this is no loss.
-- KEYS: checkpoint, index of runs, index of workers, then per entity: document, state, stream.
-- ARGV: per entity: index (2 or 3), id, last offset, what stands in the state's place ('': nothing stays), projection
--       version.
-- Reply: {'ok', how many}, or {'refused', field, value, …}.
local intent = redis.call('HGET', KEYS[1], 'intent') or ''
local version = redis.call('HGET', KEYS[1], 'projection_version')
if string.sub(intent, 1, 7) == 'rewind ' or string.sub(intent, 1, 8) == 'restore ' then
  local reply = redis.call('HGETALL', KEYS[1])
  table.insert(reply, 1, 'refused')
  return reply
end
local done, arg = 0, 0
for key = 4, #KEYS, 3 do
  local index, id = KEYS[tonumber(ARGV[arg + 1])], ARGV[arg + 2]
  local score = redis.call('ZSCORE', index, id)
  if score and tonumber(score) == tonumber(ARGV[arg + 3]) and version == ARGV[arg + 5] then
    redis.call('DEL', KEYS[key], KEYS[key + 1], KEYS[key + 2])
    if ARGV[arg + 4] == '' then
      redis.call('ZREM', index, id)
    else
      redis.call('SET', KEYS[key + 1], ARGV[arg + 4])
    end
    done = done + 1
  end
  arg = arg + 5
end
return {'ok', done}
