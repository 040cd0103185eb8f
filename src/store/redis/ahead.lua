#!lua flags=no-writes
-- Entities whose last offset is there or later, with the checkpoint of the same instant.
-- KEYS: checkpoint, index of runs, index of workers.
-- ARGV: the offset, at most how many of each kind.
-- Reply: {'ok', checkpoint's fields, ids and last offsets of runs, of workers}.
local reply = {'ok', redis.call('HGETALL', KEYS[1])}
for i = 2, 3 do
  reply[i + 1] = redis.call('ZRANGEBYSCORE', KEYS[i], ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
end
return reply
