#!lua flags=no-writes
-- Reads documents, their places in the index and who is parked with the checkpoint, all of one instant, whatever it is.
-- KEYS: checkpoint, index of runs, index of workers, parked, then per entity: document, state.
-- ARGV: per entity: index (2 or 3), id, subject.
-- Reply: {'ok', checkpoint's fields, then per entity {what, offset or '', first offset not applied or ''}}, where what is as
--        in load.lua.
local reply, arg = {'ok', redis.call('HGETALL', KEYS[1])}, 0
for key = 5, #KEYS, 2 do
  local score = redis.call('ZSCORE', KEYS[tonumber(ARGV[arg + 1])], ARGV[arg + 2])
  local json, what = redis.pcall('GET', KEYS[key]), {0}
  if type(json) == 'table' then
    what = {2, 'document_corrupt'}
  elseif json then
    local state = redis.pcall('GET', KEYS[key + 1])
    if type(state) == 'table' then
      state = 'of another type'
    elseif state and string.sub(state, 1, 8) == 'expired ' then
      state = false
    end
    what = {1, json, state}
  elseif score and redis.pcall('GET', KEYS[key + 1]) == 'expired ' .. score then
    what = {3}
  elseif score then
    what = {2, 'missing_document'}
  end
  reply[#reply + 1] = {what, score or '', redis.call('HGET', KEYS[4], ARGV[arg + 3]) or ''}
  arg = arg + 3
end
return reply
