#!lua
-- Tells notes at once, if one is as expected. KEYS: that one, then those told. ARGV: its text, then theirs; '' is none.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return {'other'}
end
for i = 2, #KEYS do
  if ARGV[i] == '' then
    redis.call('DEL', KEYS[i])
  else
    redis.call('SET', KEYS[i], ARGV[i])
  end
end
return {'ok'}
