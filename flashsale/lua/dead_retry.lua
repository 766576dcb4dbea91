#!lua
-- Put a dead letter's order back into the stream of orders.
--
-- Guarantee: once for a letter: it is gone when its order is back in the stream. Only while the
-- user's receipt is of this very order: an order that was given back is not written again.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS[1] stream    of accepted orders: userId, voucherId, id, ms
-- KEYS[2] dead      stream of dead letters
-- KEYS[3] reasons   hash, order id -> reason
-- KEYS[4] receipt   hash, user id -> order id
-- ARGV[1] the letter's id
-- ARGV[2] user id
-- ARGV[3] voucher id
-- ARGV[4] order id
-- ARGV[5] when it was accepted, Unix ms
--
-- Replies the new entry's id, "" where there is no such letter any more, "-" where the receipt is
--   not of this order

local stream_key, dead_key, reasons_key, receipt_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local letter_id, user_id, voucher_id, order_id, ms =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if #KEYS ~= 4 or #ARGV ~= 5 then
  return redis.error_reply('REFUSED dead_retry.lua takes 4 keys and 5 arguments')
end
local expected = {'stream', 'stream', 'hash', 'hash'}
for i = 1, 4 do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= expected[i] then
    return redis.error_reply('REFUSED key ' .. i .. ' is a ' .. found .. ', not a ' .. expected[i])
  end
end

if #redis.call('XRANGE', dead_key, letter_id, letter_id) == 0 then
  return ''
end
if redis.call('HGET', receipt_key, user_id) ~= order_id then
  return '-'
end
local added = redis.pcall('XADD', stream_key, '*',
  'userId', user_id, 'voucherId', voucher_id, 'id', order_id, 'ms', ms)
if type(added) == 'table' and added.err then
  return redis.error_reply('REFUSED ' .. added.err)
end
redis.call('XDEL', dead_key, letter_id)
redis.call('HDEL', reasons_key, order_id)
return added
