#!lua
-- Sell: decide a batch of claims on one voucher, and write what was sold.
--
-- Guarantee: decided pair by pair, in order, so that pair n sees what pairs 1 … n-1 did; then
-- written together, atomic as a whole. A receipt outranks every state of the sale, so that a
-- winner's retry and a replay of this very batch always learn the truth. Past the deadline nothing
-- is sold: a batch that was torn from its caller cannot sell behind the caller's back.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS[1] stock     string, units left
-- KEYS[2] order     set, ids of users who hold an order
-- KEYS[3] receipt   hash, user id -> order id
-- KEYS[4] sale      hash, begin and end (Unix ms), state (open, paused, closed)
-- KEYS[5] stream    stream of accepted orders: userId, voucherId, id, ms
-- KEYS[6] … login:token:{token}, a hash with the fields id and end (Unix ms), one a pair or none at
--           all. With them the user of a pair is who is behind its session; ARGV's is not read
-- ARGV[1] voucher id
-- ARGV[2] deadline, Unix ms by this server's clock
-- ARGV[3] … user id and order id, alternating, at most 3000 pairs; ids are strings throughout
-- ARGV[…] with sessions, the last three: their full lifetime, refresh interval and longest life,
--           ms. The expiry of those in use is pushed out as session_read.lua does
--
-- Replies a flat array, code and order id for each pair:
--   0 sold, the pair's own order id     1 sold out, ""      2 duplicate, the order id already held
--   3 not begun, ""    4 ended, ""    5 not loaded, ""    6 paused, ""
--   7 past the deadline, or the stream takes no more entries, ""       8 no such session, ""

local stock_key, order_key, receipt_key, sale_key, stream_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local voucher_id = ARGV[1]

local function whole_ms(text)
  return text and #text <= 15 and tonumber(string.match(text, '^%d+$'))
end

local deadline_ms = tonumber(string.match(ARGV[2] or '', '^%d+$'))
local by_session = #KEYS > 5
local last = by_session and #ARGV - 3 or #ARGV
local full_ms, refresh_ms, longest_ms =
  whole_ms(ARGV[last + 1]), whole_ms(ARGV[last + 2]), whole_ms(ARGV[last + 3])

if #KEYS < 5 or last < 4 or last > 6002 or last % 2 ~= 0 or not deadline_ms
  or by_session and (#KEYS ~= 5 + (last - 2) / 2 or not full_ms or not refresh_ms or not longest_ms) then
  return redis.error_reply('REFUSED seckill.lua takes 5 keys, a voucher id, a deadline and pairs, '
    .. 'and for sessions a key each, a lifetime, an interval and a longest life')
end

local expected = {'string', 'set', 'hash', 'hash', 'stream'}
for i = 1, 5 do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= expected[i] then
    return redis.error_reply('REFUSED key ' .. i .. ' is a ' .. found .. ', not a ' .. expected[i])
  end
end

local stock = redis.call('GET', stock_key)
local sale = redis.call('HMGET', sale_key, 'begin', 'end', 'state')
local begin_ms, end_ms, state = tonumber(sale[1]), tonumber(sale[2]), sale[3]
local loaded = stock and begin_ms and end_ms and state
local left = tonumber(stock or 0)
-- DECR takes less than tonumber: '007', '1e3' and ' 5' have to be refused here, not by DECR.
local whole = stock and string.match(stock, '^%-?%d+$') and string.format('%.0f', left) == stock
if stock and not whole then
  return redis.error_reply('REFUSED the stock is not a whole number')
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local now_text = string.format('%.0f', now_ms)

local function refusal()
  if now_ms > deadline_ms then return 7 end
  if state == 'paused' then return 6 end
  if now_ms < begin_ms then return 3 end
  if now_ms >= end_ms or state ~= 'open' then return 4 end
  if left <= 0 then return 1 end
  return nil
end

local function user_behind(session_key)
  local found = redis.pcall('HMGET', session_key, 'id', 'end')
  local id, end_ms = found[1], tonumber(found[2] or '')
  local is_id = type(id) == 'string' and string.match(id, '^[1-9]%d*$')
    and (#id < 19 or #id == 19 and id <= '9223372036854775807')
  return is_id and not (end_ms and end_ms <= now_ms) and id or false, end_ms
end

local function renew(session_key, end_ms)
  local left_ms = redis.call('PTTL', session_key)
  if left_ms >= full_ms - refresh_ms then return end
  if not end_ms then
    end_ms = now_ms + longest_ms
    redis.call('HSET', session_key, 'end', string.format('%.0f', end_ms))
  end
  local wanted_ms = math.min(full_ms, end_ms - now_ms)
  if left_ms < wanted_ms - refresh_ms then redis.call('PEXPIRE', session_key, wanted_ms) end
end

local users, known, ends_ms = {}, {}, {}
for n = 1, (last - 2) / 2 do
  local user_id = ARGV[2 * n + 1]
  if by_session then user_id, ends_ms[n] = user_behind(KEYS[5 + n]) end
  users[n] = user_id
  if user_id then known[#known + 1] = user_id end
end

local held_by = {}
if loaded and #known > 0 then
  for k, order_id in ipairs(redis.call('HMGET', receipt_key, unpack(known))) do
    held_by[known[k]] = order_id
  end
end

local replies, fresh, places = {}, {}, {}
for n = 1, #users do
  local user_id, order_id = users[n], ARGV[2 * n + 2]
  local code, held = 5, ''
  if not user_id then
    code = 8
  elseif loaded then
    held = held_by[user_id] or fresh[user_id]
    code = held and 2 or refusal()
    if not code then
      code, held = 0, order_id
      fresh[user_id] = order_id
      places[#places + 1] = n
      left = left - 1
    end
  end
  replies[2 * n - 1] = code
  replies[2 * n] = held or ''
end

-- First the one write that can still fail: a stream whose ids are spent takes no entry. What does
-- not reach the stream is not sold.
local buyers, orders = {}, {}
for k, n in ipairs(places) do
  local user_id, order_id = users[n], ARGV[2 * n + 2]
  local added = redis.pcall('XADD', stream_key, '*',
    'userId', user_id, 'voucherId', voucher_id, 'id', order_id, 'ms', now_text)
  if type(added) == 'table' and added.err then
    if k == 1 then return redis.error_reply('REFUSED ' .. added.err) end
    for m = n, #users do
      if fresh[users[m]] then replies[2 * m - 1], replies[2 * m] = 7, '' end
    end
    break
  end
  buyers[#buyers + 1] = user_id
  orders[#orders + 1] = user_id
  orders[#orders + 1] = order_id
end
if #buyers > 0 then
  redis.call('DECRBY', stock_key, #buyers)
  redis.call('SADD', order_key, unpack(buyers))
  redis.call('HSET', receipt_key, unpack(orders))
end

for k = 6, #KEYS do
  if users[k - 5] then renew(KEYS[k], ends_ms[k - 5]) end
end
return replies
