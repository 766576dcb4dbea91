#!lua
-- Add places to a geo index that is being built aside.
--
-- Guarantee: only while the builder's lock still holds its token.
--
-- KEYS[1] lock      string, the token of the builder
-- KEYS[2] built     geo set, the new index
-- ARGV[1] token
-- ARGV[2] … longitude, latitude and member, three a place
--
-- Replies 1 added, 0 overtaken: what was built is gone

local lock_key, built_key = KEYS[1], KEYS[2]
local token = ARGV[1]

if redis.call('GET', lock_key) ~= token or redis.call('EXISTS', built_key) == 0 then
  redis.call('DEL', built_key)
  return 0
end
redis.call('GEOADD', built_key, unpack(ARGV, 2))
return 1
