#!lua flags=allow-oom
-- Renew locks: extend the lease of those that are still this holder's.
--
-- Guarantee: a lock that was lost stays lost.
--
-- KEYS    the locks, strings `owner fence`
-- ARGV[1] holder, `owner fence`
-- ARGV[2] lease, ms
--
-- Replies the number of locks renewed

local holder, lease_ms = ARGV[1], ARGV[2]
local renewed = 0
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) == holder then
    redis.call('PEXPIRE', KEYS[i], lease_ms)
    renewed = renewed + 1
  end
end
return renewed
