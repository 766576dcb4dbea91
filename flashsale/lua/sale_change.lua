#!lua flags=allow-oom
-- Change a sale: its state, its units, or both.
--
-- Guarantee: once for a change, however often it is asked, and with the same answer: changes have
-- numbers that rise, and the sale keeps the last one. Units are taken away only while they are
-- left, so that there are never fewer than were sold. All of it happens, or none.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS[1] stock     string, units left
-- KEYS[2] sale      hash, state and initial; change and refused, of the last change; restocked, units
--           that ever came
-- ARGV[1] the number of the change
-- ARGV[2] units that come to the stock and to initial, negative where they go
-- ARGV[3] the new state, "" where it stays
--
-- Replies 1 changed, 0 refused: fewer units are left, 2 a later change was made before,
--   -1 not loaded

local stock_key, sale_key = KEYS[1], KEYS[2]
local change, units, state = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 2 or #ARGV ~= 3 then
  return redis.error_reply('REFUSED sale_change.lua takes 2 keys and 3 arguments')
end
if not string.match(change, '^[1-9]%d*$') or #change > 15 then
  return redis.error_reply('REFUSED the number of the change is none')
end
if units ~= '0' and not string.match(units, '^%-?[1-9]%d*$') or #units > 15 then
  return redis.error_reply('REFUSED the units are not a whole number')
end
local expected = {'string', 'hash'}
for i = 1, 2 do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= expected[i] then
    return redis.error_reply('REFUSED key ' .. i .. ' is a ' .. found .. ', not a ' .. expected[i])
  end
end

local stock = redis.call('GET', stock_key)
local sale = redis.call('HMGET', sale_key, 'initial', 'change', 'refused')
local initial, last, refused = sale[1], tonumber(sale[2] or 0), sale[3]
if not stock or not initial then
  return -1
end
for _, number in ipairs({stock, initial}) do
  if not string.match(number, '^%-?%d+$') then
    return redis.error_reply('REFUSED the stock or the initial units are not a whole number')
  end
end
if not last then
  return redis.error_reply('REFUSED the number of the last change is none')
end

if tonumber(change) < last then
  return 2
end
if tonumber(change) == last then
  return refused == '1' and 0 or 1
end
if tonumber(units) < 0 and tonumber(stock) + tonumber(units) < 0 then
  redis.call('HSET', sale_key, 'change', change, 'refused', '1')
  return 0
end
if units ~= '0' then
  redis.call('INCRBY', stock_key, units)
  redis.call('HINCRBY', sale_key, 'initial', units)
  if tonumber(units) > 0 then redis.call('HINCRBY', sale_key, 'restocked', units) end
end
if state ~= '' then
  redis.call('HSET', sale_key, 'state', state)
end
redis.call('HSET', sale_key, 'change', change, 'refused', '0')
return 1
