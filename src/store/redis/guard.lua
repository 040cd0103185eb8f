#!lua
-- What must be so before a batch is written: the checkpoint, its owner, and the types of keys that are written to.
-- Without the allow-oom flag the server refuses the whole script under memory pressure before it starts.
-- KEYS: owner, checkpoint, checkpoints, parked, index of runs, index of workers.
-- ARGV: owner, expected ('' or '1'), its six fields.
-- Reply: {'refused', field, value, …}, {'owner', who}, {'foreign', key, type}; otherwise what follows goes on.
local found = redis.call('HMGET', KEYS[2], 'offset', 'last_record', 'digest', 'intent', 'projection_version', 'duplicates')
local same
if ARGV[2] == '' then
  same = redis.call('EXISTS', KEYS[2]) == 0
else
  same = true
  for i = 1, 6 do
    same = same and found[i] == ARGV[i + 2]
  end
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
