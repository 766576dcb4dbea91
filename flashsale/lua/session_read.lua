#!lua flags=allow-oom
-- Read sessions: who is behind each token, keeping the sessions in use alive.
--
-- Guarantee: a session's expiry is pushed out at most once a refresh interval, so that reads stay
-- reads; an unknown or malformed session answers "".
--
-- KEYS    login:token:{token}, a hash with the field id, one a token
-- ARGV[1] full lifetime, ms
-- ARGV[2] refresh interval, ms
--
-- Replies an array of user ids as strings, "" where there is no session

local full_ms, refresh_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local ids = {}
for i = 1, #KEYS do
  local id = redis.pcall('HGET', KEYS[i], 'id')
  if type(id) == 'string' then
    ids[i] = id
    if redis.call('PTTL', KEYS[i]) < full_ms - refresh_ms then
      redis.call('PEXPIRE', KEYS[i], full_ms)
    end
  else
    ids[i] = ''
  end
end
return ids
