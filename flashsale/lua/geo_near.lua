#!lua flags=allow-oom,no-writes
-- Find what is near, the nearest first.
--
-- Guarantee: an index that is not there is told apart from one in which nothing is near.
--
-- KEYS[1] index     geo set
-- ARGV[1] longitude
-- ARGV[2] latitude
-- ARGV[3] radius, m
-- ARGV[4] how many at most
--
-- Replies an array of pairs, member and distance in m; nil where there is no index

local index_key = KEYS[1]

if redis.call('EXISTS', index_key) == 0 then
  return false
end
return redis.call('GEOSEARCH', index_key, 'FROMLONLAT', ARGV[1], ARGV[2],
  'BYRADIUS', ARGV[3], 'm', 'ASC', 'COUNT', ARGV[4], 'WITHDIST')
