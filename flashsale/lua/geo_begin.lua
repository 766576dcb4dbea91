#!lua
-- Begin to build a geo index aside.
--
-- Guarantee: one builder at a time; what a builder leaves behind goes by itself.
--
-- KEYS[1] lock      string, the token of the builder
-- KEYS[2] built     geo set, the new index
-- ARGV[1] token
-- ARGV[2] lease, ms
-- ARGV[3] a member that is nowhere, so that an index of no places is one
--
-- Replies 1 begun, 0 another is at it

local lock_key, built_key = KEYS[1], KEYS[2]
local token, lease_ms, nowhere = ARGV[1], ARGV[2], ARGV[3]

if not redis.call('SET', lock_key, token, 'NX', 'PX', lease_ms) then
  return 0
end
redis.call('DEL', built_key)
redis.call('GEOADD', built_key, 0, 0, nowhere)
redis.call('PEXPIRE', built_key, lease_ms)
return 1
