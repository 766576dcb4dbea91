#!lua flags=allow-oom
-- Add ids to a Bloom filter: to the live generation, and to the one being built.
--
-- Guarantee: all ids are in every generation that can ever answer, or the script fails. A damaged
-- generation is struck off: the filter then answers "unknown" rather than a wrong "no".
--
-- KEYS[1] filter      hash: live, building, and of each generation kind, bits, hashes
-- KEYS[2] generation 0, a bitmap or a BF filter
-- KEYS[3] generation 1
-- ARGV    two hashes an id, each below 2^40
--
-- Replies the number of generations written

local filter_key = KEYS[1]
local written = 0
for _, role in ipairs({'live', 'building'}) do
  local slot = redis.call('HGET', filter_key, role)
  if slot then
    local slot_key = KEYS[slot + 2]
    local shape = redis.call('HMGET', filter_key, 'kind:' .. slot, 'bits:' .. slot, 'hashes:' .. slot)
    local kind, bits, hashes = shape[1], tonumber(shape[2]), tonumber(shape[3])
    if redis.call('EXISTS', slot_key) == 0
        or (kind == 'bits' and redis.call('STRLEN', slot_key) * 8 < bits) then
      redis.call('HDEL', filter_key, role)
    else
      for i = 1, #ARGV, 2 do
        local first, second = ARGV[i], ARGV[i + 1]
        if kind == 'bf' then
          redis.call('BF.ADD', slot_key, first .. ':' .. second)
        else
          for j = 0, hashes - 1 do
            redis.call('SETBIT', slot_key, (first + j * second) % bits, 1)
          end
        end
      end
      written = written + 1
    end
  end
end
return written
