#!lua
-- Sell: decide a batch of claims on one voucher, and write what was sold.
--
-- Guarantee: decided pair by pair, in order, so that pair n sees what pairs 1 … n-1 did; then
-- written together, atomic as a whole. A receipt outranks every state of the sale, so that a
-- winner's retry and a replay of this very batch always learn the truth. Past the deadline nothing
-- is sold: a batch that was torn from its caller cannot sell behind the caller's back.
-- A ledger without the permit that the caller names sells nothing and tells nothing: it may be
-- behind. A sale whose own books disagree (its set and its receipts, or units left and held) sells
-- nothing: one of its keys was lost or changed. A user in the set never buys again, receipt or not.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS[1] stock     string, units left
-- KEYS[2] order     set, ids of users who hold an order
-- KEYS[3] receipt   hash, user id -> order id
-- KEYS[4] sale      hash, begin and end (Unix ms), state (open, paused, closed)
-- KEYS[5] stream    stream of accepted orders: userId, voucherId, id, ms
-- KEYS[6] … login:token:{token}, a hash with the fields id and end (Unix ms), one a pair or none at
--           all. With them the user of a pair is who is behind its session; in place of ARGV's user
--           id stands the digest of the claim's Idempotency-Key, "" without one
-- KEYS[…] after them, where a pair has such a digest: hash, user id -> digest, space, order id. Who
--           won with a digest is told so again whenever it comes
-- KEYS[…] with a permit, the last: string, what whoever compared the ledger with MySQL wrote
-- ARGV[1] voucher id
-- ARGV[2] deadline, Unix ms by this server's clock
-- ARGV[3] … user id and order id, alternating, at most 3000 pairs; ids are strings throughout
-- ARGV[…] with sessions, after the pairs: their full lifetime, refresh interval and longest life,
--           ms. The expiry of those in use is pushed out as session_read.lua does
-- ARGV[…] with a permit, which only a call with sessions has, the last: the permit as the caller
--           knows it
--
-- On a cluster sessions are in other slots, and are looked up before. Such a call names the users, and
-- says so by the word "users" at its end:
-- KEYS[6] … the hash of digests, where a pair has one, and the permit
-- ARGV[3] … user id and order id, alternating; then, where KEYS has the hash, a digest a pair, "" for
--           none; the permit; "users"
--
-- Replies a flat array, code and order id for each pair:
--   0 sold, the pair's own order id     1 sold out, ""      2 duplicate, the order id already held
--   3 not begun, ""    4 ended, ""    5 not loaded, ""    6 paused, ""
--   7 past the deadline, or the stream takes no more entries, ""       8 no such session, ""
--   9 refused: "permit", no such permit is in force; "books", this sale's keys disagree

local stock_key, order_key, receipt_key, sale_key, stream_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local voucher_id = ARGV[1]

local function whole_ms(text)
  return text and #text <= 15 and tonumber(string.match(text, '^%d+$'))
end

local deadline_ms = tonumber(string.match(ARGV[2] or '', '^%d+$'))
local by_users = ARGV[#ARGV] == 'users'
local by_session = #KEYS > 5 and not by_users
local by_permit = by_users or by_session and #ARGV % 2 == 0
local permit = ARGV[by_users and #ARGV - 1 or #ARGV]
local words = by_permit and #ARGV - 1 or #ARGV
local key_count = by_permit and #KEYS - 1 or #KEYS
local last = by_session and words - 3 or words
local repeats_key = by_session and key_count == 6 + (last - 2) / 2 and KEYS[key_count]
if by_users then
  repeats_key = key_count == 6 and KEYS[6]
  last = repeats_key and 2 + (#ARGV - 4) / 3 * 2 or #ARGV - 2
end
local full_ms, refresh_ms, longest_ms =
  whole_ms(ARGV[last + 1]), whole_ms(ARGV[last + 2]), whole_ms(ARGV[last + 3])

if #KEYS < 5 or last < 4 or last > 6002 or last % 2 ~= 0 or not deadline_ms
  or by_session and (key_count ~= (repeats_key and 6 or 5) + (last - 2) / 2
    or not full_ms or not refresh_ms or not longest_ms)
  or by_users and key_count ~= (repeats_key and 6 or 5) then
  return redis.error_reply('REFUSED seckill.lua takes 5 keys, a voucher id, a deadline and pairs, '
    .. 'for sessions a key each, a lifetime, an interval and a longest life, '
    .. 'and for a permit its key and itself')
end

-- Of pair n, where there is a hash of digests.
local function digest_of(n) return ARGV[by_users and last + n or 2 * n + 1] end

if by_permit and redis.call('GET', KEYS[#KEYS]) ~= permit then
  local refused = {}
  for n = 1, (last - 2) / 2 do
    refused[2 * n - 1], refused[2 * n] = 9, 'permit'
  end
  return refused
end
if repeats_key then
  local found = redis.call('TYPE', repeats_key).ok
  local digests = 0
  for n = 1, (last - 2) / 2 do digests = digests + #digest_of(n) end
  if found ~= 'none' and found ~= 'hash' or digests == 0 then
    return redis.error_reply('REFUSED the key of digests is a ' .. found .. ', not a hash with digests')
  end
end

-- Each of the five is asked for anyway, or written first: what is of another type says so itself.
local function refuse(i)
  return redis.error_reply('REFUSED key ' .. i .. ' is a ' .. redis.call('TYPE', KEYS[i]).ok
    .. ', not a ' .. ({'string', 'set', 'hash', 'hash', 'stream'})[i])
end

local stock = redis.pcall('GET', stock_key)
if type(stock) == 'table' then return refuse(1) end
local members = redis.pcall('SCARD', order_key)
if type(members) == 'table' then return refuse(2) end
local receipts = redis.pcall('HLEN', receipt_key)
if type(receipts) == 'table' then return refuse(3) end
local sale = redis.pcall('HMGET', sale_key, 'begin', 'end', 'state', 'initial')
if sale.err then return refuse(4) end

local begin_ms, end_ms, state = tonumber(sale[1]), tonumber(sale[2]), sale[3]
local loaded = stock and begin_ms and end_ms and state
local left = tonumber(stock or 0)
-- DECR takes less than tonumber: '007', '1e3' and ' 5' have to be refused here, not by DECR.
local whole = stock and string.match(stock, '^%-?%d+$') and string.format('%.0f', left) == stock
if stock and not whole then
  return redis.error_reply('REFUSED the stock is not a whole number')
end
local initial = tonumber(sale[4])
local agrees = members == receipts and (not initial or left + members == initial)

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local now_text = string.format('%.0f', now_ms)

local function refusal()
  if not agrees then return 9 end
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

local function renew(session_key, end_ms, left_ms)
  if not end_ms then
    end_ms = now_ms + longest_ms
    redis.call('HSET', session_key, 'end', string.format('%.0f', end_ms))
  end
  local wanted_ms = math.min(full_ms, end_ms - now_ms)
  if left_ms < wanted_ms - refresh_ms then redis.call('PEXPIRE', session_key, wanted_ms) end
end

-- How long a session has left is asked for beside its user: its key is at hand in the processor's
-- cache then, and would not be after a batch of others.
local users, known, ends_ms, lefts_ms = {}, {}, {}, {}
for n = 1, (last - 2) / 2 do
  local user_id = ARGV[2 * n + 1]
  if by_session then
    user_id, ends_ms[n] = user_behind(KEYS[5 + n])
    lefts_ms[n] = user_id and redis.call('PTTL', KEYS[5 + n])
  end
  users[n] = user_id
  if user_id then known[#known + 1] = user_id end
end

local held_by = {}
if loaded and #known > 0 then
  for k, order_id in ipairs(redis.call('HMGET', receipt_key, unpack(known))) do
    held_by[known[k]] = order_id
  end
end

-- Asked only where somebody without a receipt may buy: whoever is in the set holds an order.
local in_set
local function holds_unseen(user_id)
  if not in_set then
    in_set = {}
    for k, is_in in ipairs(redis.call('SMISMEMBER', order_key, unpack(known))) do
      in_set[known[k]] = is_in == 1
    end
  end
  return in_set[user_id]
end

-- The order that pair n won before, by the same user with the same digest.
local fresh, fresh_digest = {}, {}
local function won_before(n)
  local user_id, digest = users[n], digest_of(n)
  if digest == '' then return nil end
  if fresh[user_id] then return fresh_digest[user_id] == digest and fresh[user_id] or nil end
  local kept = redis.call('HGET', repeats_key, user_id)
  return kept and string.sub(kept, 1, #digest + 1) == digest .. ' ' and string.sub(kept, #digest + 2)
end

local replies, places = {}, {}
for n = 1, #users do
  local user_id, order_id = users[n], ARGV[2 * n + 2]
  local code, held = 5, ''
  if not user_id then
    code = 8
  elseif loaded then
    local won = repeats_key and won_before(n)
    held = won or held_by[user_id] or fresh[user_id]
    code = won and 0 or held and 2 or refusal()
    if code == 9 or not code and holds_unseen(user_id) then
      code, held = 9, 'books'
    elseif not code then
      code, held = 0, order_id
      fresh[user_id] = order_id
      if repeats_key then fresh_digest[user_id] = digest_of(n) end
      places[#places + 1] = n
      left = left - 1
    end
  end
  replies[2 * n - 1] = code
  replies[2 * n] = held or ''
end

-- First the one write that can still fail: a stream whose ids are spent takes no entry. What does
-- not reach the stream is not sold.
local buyers, orders, repeats = {}, {}, {}
for k, n in ipairs(places) do
  local user_id, order_id = users[n], ARGV[2 * n + 2]
  local added = redis.pcall('XADD', stream_key, '*',
    'userId', user_id, 'voucherId', voucher_id, 'id', order_id, 'ms', now_text)
  if type(added) == 'table' and added.err then
    if k == 1 then
      local found = redis.call('TYPE', stream_key).ok
      if found ~= 'stream' and found ~= 'none' then return refuse(5) end
      return redis.error_reply('REFUSED ' .. added.err)
    end
    for m = n, #users do
      if fresh[users[m]] then replies[2 * m - 1], replies[2 * m] = 7, '' end
    end
    break
  end
  buyers[#buyers + 1] = user_id
  orders[#orders + 1] = user_id
  orders[#orders + 1] = order_id
  if repeats_key and digest_of(n) ~= '' then
    repeats[#repeats + 1] = user_id
    repeats[#repeats + 1] = digest_of(n) .. ' ' .. order_id
  end
end
if #buyers > 0 then
  redis.call('DECRBY', stock_key, #buyers)
  redis.call('SADD', order_key, unpack(buyers))
  redis.call('HSET', receipt_key, unpack(orders))
  if #repeats > 0 then redis.call('HSET', repeats_key, unpack(repeats)) end
end

for k = 6, by_session and key_count or 5 do
  local left_ms = lefts_ms[k - 5]
  if left_ms and left_ms < full_ms - refresh_ms then renew(KEYS[k], ends_ms[k - 5], left_ms) end
end
return replies
