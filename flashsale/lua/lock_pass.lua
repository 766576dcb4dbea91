#!lua flags=allow-oom
-- Pass a lock on: release it and wake one of those who wait.
--
-- Guarantee: nobody's lock but this owner's is removed, whatever its number; one waiter is woken,
-- also one who begins to wait only now.
--
-- KEYS[1] lock    string `owner fence`
-- KEYS[2] wake    list, at most one element
-- ARGV[1] owner, without a space
-- ARGV[2] life of the wake-up, ms
--
-- Replies 1 (released) or 0 (it was not ours any more)

local lock_key, wake_key = KEYS[1], KEYS[2]
local mine, wake_ms = ARGV[1] .. ' ', ARGV[2]

local holder = redis.call('GET', lock_key)
if not holder or string.sub(holder, 1, #mine) ~= mine then
  return 0
end
redis.call('DEL', lock_key, wake_key)
redis.call('RPUSH', wake_key, '1')
redis.call('PEXPIRE', wake_key, wake_ms)
return 1
