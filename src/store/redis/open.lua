#!lua
-- Takes a partition, unless an operator's lease is live, and tells what is there.
-- KEYS: owner, checkpoint, checkpoints, parked. ARGV: owner, lease in milliseconds, marks wanted.
-- Reply: {'owner', who}, or {'ok', checkpoint's fields, parked, marks}.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] and string.sub(owner, 1, 9) == 'operator/' then
  return {'owner', owner}
end
local checkpoint = redis.call('HGETALL', KEYS[2])
local parked = redis.call('HGETALL', KEYS[4])
local marks = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'ok', checkpoint, parked, marks}
