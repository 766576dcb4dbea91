#!lua
-- Take locks: each of several, where it is free or already the same owner's.
--
-- Guarantee: a lock has one owner at a time. Taking it again as the same owner replaces the
-- fencing number by a higher one and extends the lease, so that an earlier self can neither
-- renew nor release it, nor take it back.
--
-- KEYS    the locks, strings `owner fence`
-- ARGV[1] owner, without a space
-- ARGV[2] fencing number
-- ARGV[3] lease, ms
--
-- Replies an array of 1 (taken) and 0 (another's, or a later self's), one a lock

local owner, fence, lease_ms = ARGV[1], ARGV[2], ARGV[3]
local mine = owner .. ' '
local taken = {}
for i = 1, #KEYS do
  local holder = redis.call('GET', KEYS[i])
  local is_mine = holder and string.sub(holder, 1, #mine) == mine
  local held_fence = is_mine and tonumber(string.sub(holder, #mine + 1)) or 0
  if holder and (not is_mine or held_fence > tonumber(fence)) then
    taken[i] = 0
  else
    redis.call('SET', KEYS[i], mine .. fence, 'PX', lease_ms)
    taken[i] = 1
  end
end
return taken
