#!lua
-- Grant the permit to sell: the ledger's half of its comparison with MySQL, and the writing.
--
-- Guarantee: written only by the very server process that MySQL was read for, and only where it
-- is not behind what MySQL had: the same epoch, a stream that ends no earlier, counters of order
-- ids no lower. A permit that is in force already stays as it is.
--
-- KEYS[1] permit    string, run id and a random part
-- KEYS[2] epoch     string
-- KEYS[3] closed    string, why no permit is to be written
-- KEYS[4] stream    of accepted orders
-- KEYS[5] … counters of order ids
-- ARGV[1] the random part of a new permit
-- ARGV[2] the run id that this server had before MySQL was read
-- ARGV[3] MySQL's epoch
-- ARGV[4] position in MySQL, ms part
-- ARGV[5] position in MySQL, sequence part
-- ARGV[6] … the highest number that MySQL has seen of each counter
--
-- Replies two elements: 1 and the permit in force; or 0 and what stands against it:
--   "run" the server was started anew meanwhile, "closed", "epoch", "stream", "counter"

local permit_key, epoch_key, closed_key, stream_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local random, run_id, epoch = ARGV[1], ARGV[2], ARGV[3]

if #KEYS < 4 or #ARGV ~= #KEYS + 1 or run_id == '' then
  return redis.error_reply('REFUSED permit_grant.lua takes 4 keys and counters, 5 arguments and '
    .. 'a number for each counter')
end

if string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') ~= run_id then
  return {0, 'run'}
end
if redis.call('EXISTS', closed_key) == 1 then
  return {0, 'closed'}
end
if redis.call('GET', epoch_key) ~= epoch then
  return {0, 'epoch'}
end

-- As text that sorts as the numbers do: a Lua number would round the last digits.
local function sortable(ms, seq)
  return string.rep('0', 20 - #ms) .. ms .. string.rep('0', 20 - #seq) .. seq
end

local last_ms, last_seq = '0', '0'
if redis.call('EXISTS', stream_key) == 1 then
  local about = redis.call('XINFO', 'STREAM', stream_key)
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then
      last_ms, last_seq = string.match(about[i + 1], '^(%d+)-(%d+)$')
    end
  end
end
if sortable(last_ms, last_seq) < sortable(ARGV[4], ARGV[5]) then
  return {0, 'stream'}
end

for i = 5, #KEYS do
  if (tonumber(redis.call('GET', KEYS[i]) or 0) or 0) < tonumber(ARGV[i + 1]) then
    return {0, 'counter'}
  end
end

local found = redis.pcall('GET', permit_key)  -- of another type it is none, and SET replaces it
if type(found) == 'string' and string.sub(found, 1, #run_id + 1) == run_id .. ':' then
  return {1, found}
end
local permit = run_id .. ':' .. random
redis.call('SET', permit_key, permit)
return {1, permit}
