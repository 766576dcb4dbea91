#!lua
-- Set an entry aside: it can never become a row.
--
-- Guarantee: the dead letter is added and then the entry acknowledged, together, once; an entry that
-- is no longer pending is left alone. What cannot be set aside stays pending.
-- An error that begins with REFUSED is raised before the first write.
--
-- KEYS[1] stream    of accepted orders
-- KEYS[2] dead      stream of dead letters
-- KEYS[3] reasons   hash, order id -> reason
-- ARGV[1] group
-- ARGV[2] entry id
-- ARGV[3] order id, "" where the entry has none that can be read
-- ARGV[4] reason
-- ARGV[5] … the dead letter's fields and values, alternating, at most 1000 of each
--
-- Replies 1 set aside, 0 it was not pending

local stream_key, dead_key, reasons_key = KEYS[1], KEYS[2], KEYS[3]
local group, entry_id, order_id, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 3 or #ARGV < 4 or #ARGV > 2004 or #ARGV % 2 ~= 0 then
  return redis.error_reply('REFUSED dead_letter.lua takes 3 keys, 4 arguments and field pairs')
end

local expected = {'stream', 'stream', 'hash'}
for i = 1, 3 do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= expected[i] then
    return redis.error_reply('REFUSED key ' .. i .. ' is a ' .. found .. ', not a ' .. expected[i])
  end
end

local pending = redis.pcall('XPENDING', stream_key, group, entry_id, entry_id, 1)
if pending.err or #pending == 0 then
  return 0
end
local added = redis.pcall('XADD', dead_key, '*', 'entry', entry_id, 'reason', reason, unpack(ARGV, 5))
if type(added) == 'table' and added.err then
  return redis.error_reply('REFUSED ' .. added.err)
end
if order_id ~= '' then
  redis.call('HSET', reasons_key, order_id, reason)
end
redis.call('XACK', stream_key, group, entry_id)
return 1
