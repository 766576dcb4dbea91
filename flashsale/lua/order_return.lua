#!lua flags=allow-oom
-- Return the unit of an order that has ended, and free its user to buy again.
--
-- Guarantee: once for an order, however often it is asked: only while the user's receipt is of
-- this very order. A user who holds another order by its row keeps the place, with a receipt of
-- that one. All of it happens, or none.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS[1] receipt   hash, user id -> order id
-- KEYS[2] order     set, ids of users who hold an order
-- KEYS[3] stock     string, units left
-- ARGV[1] user id
-- ARGV[2] order id
-- ARGV[3] the order that the user holds by a row, "" for none
--
-- Replies 1 returned, 0 there was nothing to return

local receipt_key, order_key, stock_key = KEYS[1], KEYS[2], KEYS[3]
local user_id, order_id, other_id = ARGV[1], ARGV[2], ARGV[3]

if #KEYS ~= 3 or #ARGV ~= 3 then
  return redis.error_reply('REFUSED order_return.lua takes 3 keys, a user id and two order ids')
end
local expected = {'hash', 'set', 'string'}
for i = 1, 3 do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= expected[i] then
    return redis.error_reply('REFUSED key ' .. i .. ' is a ' .. found .. ', not a ' .. expected[i])
  end
end

if redis.call('HGET', receipt_key, user_id) ~= order_id then
  return 0
end
local stock = redis.call('GET', stock_key)
if not stock or not string.match(stock, '^%-?%d+$') then
  return redis.error_reply('REFUSED the stock is gone or not a whole number')
end

redis.call('INCR', stock_key)
if other_id ~= '' then
  redis.call('SADD', order_key, user_id)
  redis.call('HSET', receipt_key, user_id, other_id)
else
  redis.call('SREM', order_key, user_id)
  redis.call('HDEL', receipt_key, user_id)
end
return 1
