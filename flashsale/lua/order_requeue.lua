#!lua
-- Write accepted orders to the stream again, whose entries are gone and which are no rows.
--
-- Guarantee: only an order that its user's receipt still names; one that was set aside stays so.
-- An order that is on the stream twice becomes one row: the worker finds it there.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS[1] receipt   hash, user id -> order id
-- KEYS[2] reasons   hash, order id -> why it was set aside
-- KEYS[3] stream    of accepted orders
-- ARGV[1] voucher id
-- ARGV[2] … user id, order id and when it was accepted (Unix ms), by turns, at most 1000 orders
--
-- Replies the number of orders written

local receipt_key, reasons_key, stream_key = KEYS[1], KEYS[2], KEYS[3]
local voucher_id = ARGV[1]

if #KEYS ~= 3 or #ARGV < 4 or (#ARGV - 1) % 3 ~= 0 or #ARGV > 3001 then
  return redis.error_reply('REFUSED order_requeue.lua takes 3 keys, a voucher id and orders')
end
local expected = {'hash', 'hash', 'stream'}
for i = 1, 3 do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= expected[i] then
    return redis.error_reply('REFUSED key ' .. i .. ' is a ' .. found .. ', not a ' .. expected[i])
  end
end

local written = 0
for i = 2, #ARGV, 3 do
  local user_id, order_id, accepted_ms = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('HGET', receipt_key, user_id) == order_id
    and redis.call('HEXISTS', reasons_key, order_id) == 0 then
    redis.call('XADD', stream_key, '*',
      'userId', user_id, 'voucherId', voucher_id, 'id', order_id, 'ms', accepted_ms)
    written = written + 1
  end
end
return written
