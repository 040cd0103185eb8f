#!lua
-- Extends a lease that is ours, and reads the checkpoint.
-- KEYS: owner, checkpoint. ARGV: owner, lease in milliseconds.
-- Reply: {'owner', who}, or {'ok', checkpoint's fields}.
local owner = redis.call('GET', KEYS[1])
if owner ~= ARGV[1] then
  return {'owner', owner or ''}
end
local checkpoint = redis.call('HGETALL', KEYS[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {'ok', checkpoint}
