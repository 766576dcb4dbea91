#!lua
-- Load a sale: create its stock and its terms, once.
--
-- Guarantee: both are created or neither; a sale that is already loaded is left as it is, and a
-- torn one (some of its keys without the others, or keys that disagree, as in seckill.lua) is refused
-- rather than mended by guess.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS[1] stock     string, units left
-- KEYS[2] sale      hash, begin, end, state, initial; change, the last one that is in the units
-- KEYS[3] order     set, ids of users who hold an order
-- KEYS[4] receipt   hash, user id -> order id
-- KEYS[5] sales     set, ids of all loaded vouchers
-- ARGV[1] voucher id
-- ARGV[2] units
-- ARGV[3] begin, Unix ms
-- ARGV[4] end, Unix ms
-- ARGV[5] the number of the last change that MySQL's units have in them, 0 without one
-- ARGV[6] state: open, paused or closed
--
-- Replies 1 created, 0 already loaded, -1 torn: nothing was written

local stock_key, sale_key, order_key, receipt_key, sales_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local voucher_id, units, begin_ms, end_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local change, state = ARGV[5], ARGV[6]

if #KEYS ~= 5 or #ARGV ~= 6 then
  return redis.error_reply('REFUSED sale_load.lua takes 5 keys and 6 arguments')
end
for i = 2, 5 do
  if ARGV[i] ~= '0' and not string.match(ARGV[i], '^[1-9]%d*$') then
    return redis.error_reply('REFUSED argument ' .. i .. ' is not a whole number from 0 up')
  end
end
if state ~= 'open' and state ~= 'paused' and state ~= 'closed' then
  return redis.error_reply('REFUSED argument 6 is no state of a sale')
end

local expected = {'string', 'hash', 'set', 'hash', 'set'}
for i = 1, 5 do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= expected[i] then
    return redis.error_reply('REFUSED key ' .. i .. ' is a ' .. found .. ', not a ' .. expected[i])
  end
end

local has_stock = redis.call('EXISTS', stock_key) == 1
local has_sale = redis.call('EXISTS', sale_key) == 1
if has_stock and has_sale then
  local left = tonumber(redis.call('GET', stock_key))
  local initial = tonumber(redis.call('HGET', sale_key, 'initial') or '')
  local members = redis.call('SCARD', order_key)
  if not left or members ~= redis.call('HLEN', receipt_key)
    or initial and left + members ~= initial then
    return -1
  end
  redis.call('SADD', sales_key, voucher_id)
  return 0
end
if has_stock or has_sale or redis.call('EXISTS', order_key, receipt_key) > 0 then
  return -1
end

redis.call('SET', stock_key, units)
redis.call('HSET', sale_key, 'begin', begin_ms, 'end', end_ms, 'state', state, 'initial', units)
if change ~= '0' then
  redis.call('HSET', sale_key, 'change', change, 'refused', '0')
end
redis.call('SADD', sales_key, voucher_id)
return 1
