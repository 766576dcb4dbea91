#!lua
-- Begin to rebuild a Bloom filter: from now on ids are added to both generations.
--
-- Guarantee: the live generation answers as before. A rebuild that was under way is superseded.
--
-- KEYS[1] filter      hash: live, building, token, and of each generation kind, bits, hashes,
--                     capacity
-- KEYS[2] generation 0
-- KEYS[3] generation 1
-- KEYS[4] fill        bitmap: what the rebuild has read so far
-- ARGV[1] token
-- ARGV[2] kind: bits; or bf, which means the BF commands where the server has them
-- ARGV[3] bits
-- ARGV[4] hashes
-- ARGV[5] capacity, ids
-- ARGV[6] false positives at capacity, a share
-- ARGV[7] life of the fill between two chunks, ms
--
-- Replies the kind that is being built, bits or bf

local filter_key, fill_key = KEYS[1], KEYS[4]
local token, kind, bits, hashes = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local capacity, share, fill_ms = ARGV[5], ARGV[6], ARGV[7]

if kind == 'bf' and not redis.call('COMMAND', 'INFO', 'BF.RESERVE')[1] then
  kind = 'bits'
end
local slot = redis.call('HGET', filter_key, 'live') == '0' and 1 or 0
local slot_key = KEYS[slot + 2]
redis.call('DEL', slot_key, fill_key)
if kind == 'bf' then
  redis.call('BF.RESERVE', slot_key, share, capacity)
else
  redis.call('SETBIT', slot_key, bits - 1, 0)
  redis.call('SETBIT', fill_key, bits - 1, 0)
  redis.call('PEXPIRE', fill_key, fill_ms)
end
redis.call('HSET', filter_key, 'building', slot, 'token', token, 'kind:' .. slot, kind,
  'bits:' .. slot, bits, 'hashes:' .. slot, hashes, 'capacity:' .. slot, capacity)
return kind
