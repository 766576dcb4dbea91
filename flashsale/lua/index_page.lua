#!lua flags=allow-oom,no-writes
-- Read a part of a sorted set by score.
--
-- Guarantee: an index that is not there is told apart from one in which there is nothing.
--
-- KEYS[1] index   sorted set
-- ARGV[1] the highest score, or +inf; the lowest is 0, below which nobody is
-- ARGV[2] how many to leave out
-- ARGV[3] how many
-- ARGV[4] 1 for the highest first, 0 for the lowest first
--
-- Replies members, each before its score; nil where there is no index

local index_key = KEYS[1]
local most, offset, count, falling = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'

if redis.call('EXISTS', index_key) == 0 then
  return false
end
if falling then
  return redis.call('ZREVRANGEBYSCORE', index_key, most, 0, 'WITHSCORES', 'LIMIT', offset, count)
end
return redis.call('ZRANGEBYSCORE', index_key, 0, most, 'WITHSCORES', 'LIMIT', offset, count)
