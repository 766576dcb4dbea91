#!lua flags=allow-oom
-- Release locks: those that are still this holder's.
--
-- Guarantee: nobody's lock but this very holder's (owner and fencing number) is ever removed.
--
-- KEYS    the locks, strings `owner fence`
-- ARGV[1] holder, `owner fence`; of a cached thing's lock, the token
--
-- Replies the number of locks released

local holder = ARGV[1]
local released = 0
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) == holder then
    redis.call('DEL', KEYS[i])
    released = released + 1
  end
end
return released
