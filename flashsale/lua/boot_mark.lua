#!lua
-- Mark the cache as warm, or see whether it is.
--
-- Guarantee: none beyond the one command; it is a script to go the way that all others go.
--
-- KEYS[1] marker    string, the id of the data set that the cache holds
-- ARGV[1] the id to write; without it the marker is only read
--
-- Replies the marker, nil where the cache is not warm

if ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1])
end
return redis.call('GET', KEYS[1])
