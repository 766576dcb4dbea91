#!lua
-- Take from budgets: one from each of several counters, or from none.
--
-- Guarantee: within a window, which begins with the first take, no counter goes above its limit; a
-- call that is refused costs nothing. A counter without an expiry starts anew.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS    the counters, strings
-- ARGV[1] window, ms
-- ARGV[2] … the limit of each counter, in the order of KEYS
--
-- Replies 0 taken, else the milliseconds until the last of the spent windows ends

local window_ms = tonumber(ARGV[1])

if #KEYS < 1 or #ARGV ~= #KEYS + 1 or not window_ms or window_ms < 1 then
  return redis.error_reply('REFUSED budget_take.lua takes counters, a window and a limit for each')
end
for i = 1, #KEYS do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= 'string' then
    return redis.error_reply('REFUSED key ' .. i .. ' is a ' .. found .. ', not a string')
  end
end

local taken, wait_ms = {}, 0
for i = 1, #KEYS do
  local left_ms = redis.call('PTTL', KEYS[i])
  taken[i] = left_ms > 0 and tonumber(redis.call('GET', KEYS[i])) or 0
  if taken[i] >= tonumber(ARGV[i + 1]) then
    wait_ms = math.max(wait_ms, left_ms, 1)
  end
end
if wait_ms > 0 then
  return wait_ms
end

for i = 1, #KEYS do
  if taken[i] == 0 then
    redis.call('SET', KEYS[i], 1, 'PX', window_ms)
  else
    redis.call('INCR', KEYS[i])
  end
end
return 0
