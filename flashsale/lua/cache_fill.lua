#!lua
-- Fill an entry with what was loaded, and give the lock back.
--
-- Guarantee: only the holder of the lock writes. An update deletes the lock, so whoever loaded
-- before it can never put older data back.
--
-- KEYS[1] entry   string
-- KEYS[2] lock    string: the token of whoever loads
-- ARGV[1] token
-- ARGV[2] the new entry
-- ARGV[3] its lifetime, ms; 0: for ever
--
-- Replies 1 (written) or 0 (the lock is not ours any more)

local entry_key, lock_key = KEYS[1], KEYS[2]
local token, entry, ttl_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

if redis.call('GET', lock_key) ~= token then
  return 0
end
if ttl_ms > 0 then
  redis.call('SET', entry_key, entry, 'PX', ttl_ms)
else
  redis.call('SET', entry_key, entry)
end
redis.call('DEL', lock_key)
return 1
