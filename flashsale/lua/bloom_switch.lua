#!lua flags=allow-oom
-- Switch a Bloom filter to the generation that was built.
--
-- Guarantee: in one step. Before it the old generation answers, after it the new one, which holds
-- what the rebuild has read and what was added since it began.
--
-- KEYS[1] filter      hash: live, building, token, and of each generation kind, bits
-- KEYS[2] generation 0
-- KEYS[3] generation 1
-- KEYS[4] fill        bitmap: what the rebuild has read
-- ARGV[1] token
--
-- Replies 1 (switched) or 0 (superseded, or a part of it was lost)

local filter_key, fill_key = KEYS[1], KEYS[4]
local slot = redis.call('HGET', filter_key, 'building')
if not slot or redis.call('HGET', filter_key, 'token') ~= ARGV[1] then
  return 0
end
local slot_key, other_key = KEYS[slot + 2], KEYS[3 - slot]
if redis.call('HGET', filter_key, 'kind:' .. slot) == 'bits' then
  local bytes = math.ceil(redis.call('HGET', filter_key, 'bits:' .. slot) / 8)
  if redis.call('STRLEN', slot_key) < bytes or redis.call('STRLEN', fill_key) < bytes then
    return 0
  end
  redis.call('BITOP', 'OR', slot_key, slot_key, fill_key)
  redis.call('DEL', fill_key)
elseif redis.call('EXISTS', slot_key) == 0 then
  return 0
end
redis.call('HSET', filter_key, 'live', slot)
redis.call('HDEL', filter_key, 'building', 'token')
redis.call('UNLINK', other_key)
return 1
