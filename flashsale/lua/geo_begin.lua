#!lua
-- Begin to build a geo index aside.
--
-- Guarantee: one builder at a time; what a builder leaves behind goes by itself; who builds only
-- what is absent finds an index that came between the look and this call.
--
-- KEYS[1] lock      string, the token of the builder
-- KEYS[2] built     geo set, the new index
-- KEYS[3] index     geo set, the index in use
-- ARGV[1] token
-- ARGV[2] lease, ms
-- ARGV[3] a member that is nowhere, so that an index of no places is one
-- ARGV[4] 1 to build it anew, 0 to build it only where it is absent
--
-- Replies 1 begun, 0 another is at it, 2 the index is there

local lock_key, built_key, index_key = KEYS[1], KEYS[2], KEYS[3]
local token, lease_ms, nowhere, anew = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if anew == '0' and redis.call('EXISTS', index_key) == 1 then
  return 2
end

if not redis.call('SET', lock_key, token, 'NX', 'PX', lease_ms) then
  return 0
end
redis.call('DEL', built_key)
redis.call('GEOADD', built_key, 0, 0, nowhere)
redis.call('PEXPIRE', built_key, lease_ms)
return 1
