#!lua flags=allow-oom,no-writes
-- Read who is in every one of some sets.
--
-- Guarantee: a set that is not there is told apart from one in which there is nobody.
--
-- KEYS    sets
-- ARGV    members that are asked about; none asks for all
--
-- Replies the members; nil where a set is not there

for i = 1, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    return false
  end
end
if #ARGV == 0 then
  return redis.call('SINTER', unpack(KEYS))
end
local found = {}
for _, member in ipairs(ARGV) do
  local everywhere = true
  for i = 1, #KEYS do
    everywhere = everywhere and redis.call('SISMEMBER', KEYS[i], member) == 1
  end
  if everywhere then
    found[#found + 1] = member
  end
end
return found
