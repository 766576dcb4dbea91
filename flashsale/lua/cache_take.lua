#!lua
-- Take the loading of a cached thing, unless a fresh entry is there already.
--
-- Guarantee: of all who ask while there is no fresh entry, one alone is told to load, until it
-- fills, gives up or its lease ends.
--
-- KEYS[1] entry   string {"expireTime":…,"data":…}
-- KEYS[2] lock    string: the token of whoever loads
-- ARGV[1] token
-- ARGV[2] lease, ms
-- ARGV[3] Unix ms: an entry that expires later, or whose expireTime is 0, is fresh; so 0 means
--         that any entry is, -1 that none is
--
-- Replies the fresh entry, else 1 (load it) or 0 (another loads it)

local entry_key, lock_key = KEYS[1], KEYS[2]
local token, lease_ms, after_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

local entry = redis.pcall('GET', entry_key)
if after_ms >= 0 and type(entry) == 'string' then
  local expires_ms = tonumber(string.match(entry, '^{"expireTime":(%d+),"data":.*}$'))
  if expires_ms and (expires_ms == 0 or expires_ms > after_ms) then
    return entry
  end
end
if redis.call('SET', lock_key, token, 'NX', 'PX', lease_ms) then
  return 1
end
return 0
