#!lua flags=no-writes
-- Measure a Bloom filter: how much of it is in use.
--
-- Guarantee: reads no more than the sample, however large the filter is.
--
-- KEYS[1] filter      hash: live, and of each generation kind, bits, hashes, capacity
-- KEYS[2] generation 0
-- KEYS[3] generation 1
-- ARGV[1] sample, bytes
--
-- Replies nothing where there is no filter, else kind, capacity, bits, hashes, then of a bitmap
-- the bits set and the bits of the sample, of a BF filter the ids in it and its capacity

local filter_key, sample = KEYS[1], tonumber(ARGV[1])

local live = redis.call('HGET', filter_key, 'live')
if not live or redis.call('EXISTS', KEYS[live + 2]) == 0 then
  return {}
end
local slot_key = KEYS[live + 2]
local shape = redis.call('HMGET', filter_key, 'kind:' .. live, 'capacity:' .. live,
  'bits:' .. live, 'hashes:' .. live)
if shape[1] == 'bf' then
  local facts = redis.call('BF.INFO', slot_key)
  local told = {}
  for i = 1, #facts, 2 do
    told[type(facts[i]) == 'table' and facts[i].ok or facts[i]] = facts[i + 1]
  end
  shape[5], shape[6] = told['Number of items inserted'], told['Capacity']
else
  sample = math.min(sample, redis.call('STRLEN', slot_key))
  shape[5], shape[6] = redis.call('BITCOUNT', slot_key, 0, sample - 1), sample * 8
end
return shape
