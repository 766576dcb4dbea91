#!lua
-- Check a phone code: right once, wrong a few times, then void.
--
-- Guarantee: a code is spent by the first right try; after the last wrong one it is gone too.
--
-- KEYS[1] code      hash: code, tries
-- ARGV[1] the code given
-- ARGV[2] tries that a code stands
--
-- Replies 1 right (and now spent), 0 wrong or none

local code_key = KEYS[1]
local given, tries_max = ARGV[1], tonumber(ARGV[2])

local code = redis.call('HGET', code_key, 'code')
if not code then
  return 0
end
if code == given then
  redis.call('DEL', code_key)
  return 1
end
if redis.call('HINCRBY', code_key, 'tries', 1) >= tries_max then
  redis.call('DEL', code_key)
end
return 0
