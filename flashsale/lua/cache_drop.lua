#!lua flags=allow-oom
-- Drop entries after an update, together with the locks of those who load them now.
--
-- Guarantee: nobody who loaded before this can fill afterwards. An entry under logical expiry
-- stays, marked expired, so that its readers need not wait; every other one goes.
--
-- KEYS    entry and lock, in pairs
-- ARGV    none
--
-- Replies the number of entries that were there

local found = 0
for i = 1, #KEYS, 2 do
  local entry_key, lock_key = KEYS[i], KEYS[i + 1]
  redis.call('DEL', lock_key)
  local entry = redis.pcall('GET', entry_key)
  if entry then
    found = found + 1
    local rest = type(entry) == 'string' and string.match(entry, '^{"expireTime":[1-9]%d*(,"data":.*)$')
    if rest then
      redis.call('SET', entry_key, '{"expireTime":1' .. rest)
    else
      redis.call('DEL', entry_key)
    end
  end
end
return found
