#!lua
-- Number a lock: write the fencing number into one that was just taken.
--
-- Guarantee: only while it is still this owner's, so that numbers grow from owner to owner.
--
-- KEYS[1] lock    string `owner fence`
-- ARGV[1] holder as taken, `owner 0`
-- ARGV[2] holder with its number, `owner fence`
-- ARGV[3] lease, ms
--
-- Replies 1 (numbered) or 0 (lost meanwhile)

local lock_key = KEYS[1]
local taken, numbered, lease_ms = ARGV[1], ARGV[2], ARGV[3]

if redis.call('GET', lock_key) ~= taken then
  return 0
end
redis.call('SET', lock_key, numbered, 'PX', lease_ms)
return 1
