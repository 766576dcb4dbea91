#!lua
-- Add a member to those sorted sets that are there, and keep the newest of each.
--
-- Guarantee: a set that is being read from MySQL meanwhile, perhaps without the member, is not put
-- in place: its lock goes.
--
-- KEYS    index (sorted set) and lock, in pairs
-- ARGV[1] score
-- ARGV[2] member
-- ARGV[3] how many members each keeps
--
-- Replies how many sets were there

local score, member, keep = ARGV[1], ARGV[2], tonumber(ARGV[3])
local found = 0

for i = 1, #KEYS, 2 do
  local index_key, lock_key = KEYS[i], KEYS[i + 1]
  redis.call('DEL', lock_key)
  if redis.call('EXISTS', index_key) == 1 then
    found = found + 1
    redis.call('ZADD', index_key, score, member)
    redis.call('ZREMRANGEBYRANK', index_key, 1, -keep - 1)
  end
end
return found
