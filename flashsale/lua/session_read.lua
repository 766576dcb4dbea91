#!lua flags=allow-oom
-- Read sessions: who is behind each token, keeping the sessions in use alive.
--
-- Guarantee: a session's expiry is pushed out at most once a refresh interval, so that reads stay
-- reads, and never beyond its end; past that, or where it is unknown or malformed, a session
-- answers "". One without an end is given one when its expiry is pushed out.
--
-- KEYS    login:token:{token}, a hash with the fields id and end (Unix ms), one a token
-- ARGV[1] full lifetime, ms
-- ARGV[2] refresh interval, ms
-- ARGV[3] longest life, ms
--
-- Replies an array of user ids as strings, "" where there is no session

local full_ms, refresh_ms, longest_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function renew(session_key, end_ms)
  local left_ms = redis.call('PTTL', session_key)
  if left_ms >= full_ms - refresh_ms then return end
  if not end_ms then
    end_ms = now_ms + longest_ms
    redis.call('HSET', session_key, 'end', string.format('%.0f', end_ms))
  end
  local wanted_ms = math.min(full_ms, end_ms - now_ms)
  if left_ms < wanted_ms - refresh_ms then redis.call('PEXPIRE', session_key, wanted_ms) end
end

local ids = {}
for i = 1, #KEYS do
  local found = redis.pcall('HMGET', KEYS[i], 'id', 'end')
  local id, end_ms = found[1], tonumber(found[2] or '')
  if type(id) == 'string' and not (end_ms and end_ms <= now_ms) then
    ids[i] = id
    renew(KEYS[i], end_ms)
  else
    ids[i] = ''
  end
end
return ids
