#!lua
-- Put a geo index in place that was built aside.
--
-- Guarantee: only while the builder's lock still holds its token. Whoever changes a shop deletes
-- the lock, so an index that was read before the change never takes its place after it.
--
-- KEYS[1] lock      string, the token of the builder
-- KEYS[2] built     geo set, the new index
-- KEYS[3] index     geo set, the index in use
-- ARGV[1] token
-- ARGV[2] the index' lifetime, seconds
--
-- Replies 1 in place, 0 overtaken: what was built is gone

local lock_key, built_key, index_key = KEYS[1], KEYS[2], KEYS[3]
local token, ttl_s = ARGV[1], ARGV[2]

if redis.call('GET', lock_key) ~= token or redis.call('EXISTS', built_key) == 0 then
  redis.call('DEL', built_key)
  return 0
end
redis.call('RENAME', built_key, index_key)
redis.call('EXPIRE', index_key, ttl_s)
redis.call('DEL', lock_key)
return 1
