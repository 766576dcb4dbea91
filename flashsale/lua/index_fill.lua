#!lua
-- Put a set or a sorted set in place that was read from MySQL, and give the lock back.
--
-- Guarantee: only the holder of the lock writes. Whoever changes what it was read from deletes the
-- lock after the COMMIT, so an older index never takes the place of a newer one.
--
-- KEYS[1] index   set or sorted set
-- KEYS[2] lock    string, the token of whoever reads
-- ARGV[1] token
-- ARGV[2] lifetime, ms
-- ARGV[3] 1 for a sorted set, 0 for a set
-- ARGV[4] … members, in a sorted set each after its score; one of them is nobody, so that an index
--         of nothing is one
--
-- Replies 1 (in place) or 0 (the lock is not ours any more)

local index_key, lock_key = KEYS[1], KEYS[2]
local token, ttl_ms, sorted = ARGV[1], ARGV[2], ARGV[3] == '1'

if redis.call('GET', lock_key) ~= token then
  return 0
end
redis.call('DEL', index_key)
for i = 4, #ARGV, 1000 do
  redis.call(sorted and 'ZADD' or 'SADD', index_key, unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
redis.call('PEXPIRE', index_key, ttl_ms)
redis.call('DEL', lock_key)
return 1
