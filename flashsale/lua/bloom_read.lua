#!lua flags=no-writes
-- Read entries behind a Bloom filter: what is cached, else what the filter says of the id.
--
-- Guarantee: a filter that is absent or damaged says "unknown", never "no". With no entry keys
-- only the filter is asked.
--
-- KEYS[1] filter      hash: live (0 or 1), and of each generation kind, bits, hashes
-- KEYS[2] generation 0, a bitmap or a BF filter
-- KEYS[3] generation 1
-- KEYS    then the entries, one an id, or none
-- ARGV    two hashes an id, each below 2^40
--
-- Replies an array, per id: the entry, else 1 (may exist), 0 (does not exist), -1 (unknown)

local filter_key = KEYS[1]
local live = redis.call('HGET', filter_key, 'live')
local slot_key = live and KEYS[live + 2]
local kind, bits, hashes
if live then
  local shape = redis.call('HMGET', filter_key, 'kind:' .. live, 'bits:' .. live, 'hashes:' .. live)
  kind, bits, hashes = shape[1], tonumber(shape[2]), tonumber(shape[3])
  if redis.call('EXISTS', slot_key) == 0
      or (kind == 'bits' and redis.call('STRLEN', slot_key) * 8 < bits) then
    live = false
  end
end

local function says(first, second)
  if not live then
    return -1
  end
  if kind == 'bf' then
    return redis.call('BF.EXISTS', slot_key, first .. ':' .. second)
  end
  for i = 0, hashes - 1 do
    if redis.call('GETBIT', slot_key, (first + i * second) % bits) == 0 then
      return 0
    end
  end
  return 1
end

local entries = {}
if #KEYS > 3 then
  entries = redis.call('MGET', unpack(KEYS, 4))
end
local replies = {}
for i = 1, #ARGV / 2 do
  replies[i] = entries[i] or says(ARGV[2 * i - 1], ARGV[2 * i])
end
return replies
