#!lua flags=allow-oom
-- Trim a stream from its old end.
--
-- Guarantee: never past the oldest pending entry of any group, nor past what any group has been
-- given: only entries that every group has read and acknowledged go.
--
-- KEYS[1] stream
-- ARGV[1] entries to keep at least
--
-- Replies the number of entries removed

local stream_key, keep = KEYS[1], tonumber(ARGV[1])

if redis.call('XLEN', stream_key) <= keep then
  return 0
end

-- An id as text that sorts as its number does: a Lua number would round its last digits.
local function sortable(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. string.rep('0', 20 - #seq) .. seq
end

local function older(a, b)
  return sortable(a) < sortable(b)
end

local newest_to_go = redis.call('XRANGE', stream_key, '-', '+', 'COUNT',
  math.min(redis.call('XLEN', stream_key) - keep, 10000))
local limit = newest_to_go[#newest_to_go][1]

local groups = redis.call('XINFO', 'GROUPS', stream_key)
if #groups == 0 then
  return 0
end
for _, flat in ipairs(groups) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  local delivered = group['last-delivered-id']
  if older(delivered, limit) then limit = delivered end
  local pending = redis.call('XPENDING', stream_key, group['name'])
  if pending[1] > 0 and older(pending[2], limit) then limit = pending[2] end
end
return redis.call('XTRIM', stream_key, 'MINID', '=', limit)
