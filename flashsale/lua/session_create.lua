#!lua
-- Create sessions, each noted among its user's.
--
-- Guarantee: every session of the call is written with its expiry and its end, or none. A user's
-- set names all sessions that may live, at most so many: those that end first have to give way.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS    two a session: login:token:{token}, a hash with the fields id, nickName, icon and end
--         (Unix ms); login:sessions:{userId}, a sorted set of its user's session keys by their end
-- ARGV[1] full lifetime, ms
-- ARGV[2] longest life, ms
-- ARGV[3] sessions of one user at most
-- ARGV[4] … user id, nick name, icon: three a session, in the order of KEYS
--
-- Replies the keys of sessions that have to give way, for the caller to delete

local full_ms, longest_ms, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not full_ms or full_ms < 1 or not longest_ms or longest_ms < 1 or not most or most < 1
  or #KEYS % 2 ~= 0 or #ARGV ~= 3 + 3 * #KEYS / 2 then
  return redis.error_reply('REFUSED session_create.lua takes a lifetime, a longest life and a '
    .. 'number, two keys a session and three values')
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local end_text = string.format('%.0f', now_ms + longest_ms)

local leaving = {}
for i = 1, #KEYS / 2 do
  local session_key, held_key = KEYS[2 * i - 1], KEYS[2 * i]
  redis.call('HSET', session_key, 'id', ARGV[3 * i + 1], 'nickName', ARGV[3 * i + 2],
    'icon', ARGV[3 * i + 3], 'end', end_text)
  redis.call('PEXPIRE', session_key, math.min(full_ms, longest_ms))
  redis.call('ZADD', held_key, end_text, session_key)
  redis.call('PEXPIRE', held_key, longest_ms)
  if redis.call('ZCARD', held_key) > 1 then
    redis.call('ZREMRANGEBYSCORE', held_key, '-inf', string.format('%.0f', now_ms))
    local beyond = redis.call('ZCARD', held_key) - most
    if beyond > 0 then
      for _, old in ipairs(redis.call('ZRANGE', held_key, 0, beyond - 1)) do
        leaving[#leaving + 1] = old
      end
      redis.call('ZREMRANGEBYRANK', held_key, 0, beyond - 1)
    end
  end
end
return leaving
