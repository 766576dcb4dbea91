#!lua
-- Fill a part of the bitmap of a rebuild.
--
-- Guarantee: a rebuild that was superseded writes nothing. The generation itself is not touched:
-- ids are being added to it meanwhile, and a chunk would erase them.
--
-- KEYS[1] filter      hash: token
-- KEYS[2] fill        bitmap
-- ARGV[1] token
-- ARGV[2] offset, bytes
-- ARGV[3] the bytes
-- ARGV[4] life of the fill until the next chunk, ms
--
-- Replies 1 (written) or 0 (superseded)

local filter_key, fill_key = KEYS[1], KEYS[2]
local token, offset, chunk, fill_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call('HGET', filter_key, 'token') ~= token or redis.call('EXISTS', fill_key) == 0 then
  return 0
end
redis.call('SETRANGE', fill_key, offset, chunk)
redis.call('PEXPIRE', fill_key, fill_ms)
return 1
