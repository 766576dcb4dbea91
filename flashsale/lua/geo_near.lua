#!lua flags=allow-oom,no-writes
-- Find what is near, the nearest first.
--
-- Guarantee: an index that is not there is told apart from one in which nothing is near. Of members
-- that are equally far, all are replied or none is beyond them, so that whoever sorts them by member
-- has one order, however many are asked for.
--
-- KEYS[1] index     geo set
-- ARGV[1] longitude
-- ARGV[2] latitude
-- ARGV[3] radius, m
-- ARGV[4] how many, from 1; more where the last of them is as far as others
--
-- Replies an array of pairs, member and distance in m; nil where there is no index

local index_key = KEYS[1]

if redis.call('EXISTS', index_key) == 0 then
  return false
end
local wanted = tonumber(ARGV[4])
local count = wanted + 1
while true do
  local found = redis.call('GEOSEARCH', index_key, 'FROMLONLAT', ARGV[1], ARGV[2],
    'BYRADIUS', ARGV[3], 'm', 'ASC', 'COUNT', count, 'WITHDIST')
  if #found < count or found[#found][2] ~= found[wanted][2] then
    return found
  end
  count = count * 4
end
