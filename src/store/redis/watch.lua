
-- Follows guard.lua, for a batch that is written by a transaction: tells what stands in the place of its streams.
-- KEYS: as there, then a key per stream.
-- Reply: {'ok', type of each stream's key}.
local reply = {'ok'}
for key = 7, #KEYS do
  reply[#reply + 1] = redis.call('TYPE', KEYS[key]).ok
end
return reply
