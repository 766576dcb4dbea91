#!lua
-- Create sessions in bulk, as signing in does one by one.
--
-- Guarantee: every session of the call is written with its expiry, or none.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS    login:token:{token}, a hash with the fields id, nickName, icon, one a token
-- ARGV[1] full lifetime, ms
-- ARGV[2] … user id, nick name, icon: three a token, in the order of KEYS
--
-- Replies the number of sessions written

local full_ms = tonumber(ARGV[1])
if not full_ms or full_ms < 1 or #ARGV ~= 1 + 3 * #KEYS then
  return redis.error_reply('REFUSED session_create.lua takes a lifetime, then three values a token')
end

for i = 1, #KEYS do
  local first = 3 * i - 1
  redis.call('HSET', KEYS[i],
    'id', ARGV[first], 'nickName', ARGV[first + 1], 'icon', ARGV[first + 2])
  redis.call('PEXPIRE', KEYS[i], full_ms)
end
return #KEYS
