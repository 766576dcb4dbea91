#!lua flags=allow-oom
-- Drop geo indexes, after the COMMIT of what changed them.
--
-- Guarantee: an index goes together with the lock of whoever is building one from older data.
--
-- KEYS    the indexes and their locks
-- ARGV    none
--
-- Replies the number of keys dropped

return redis.call('DEL', unpack(KEYS))
