-- release: give leased entries back to the backlog; at the end of a slice also take the consumer away.
--
-- A failure is counted by the number that the lease had: a second copy of the same call counts nothing.
--
-- KEYS  1 jobs  2 attempts  3 alive key of the consumer  4 ahead (see keys.py)
-- ARGV  1 consumer  2 '1': the slice ends  3 how many failed alone
--       then per entry that failed alone: entry, how often it had failed before; and per entry that had overtaken others:
--       entry, its score in `ahead`. It overtakes them again.
-- ->    number of entries released
local jobs, attempts, alive, ahead = unpack(KEYS)
local consumer, ends, failed = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
if redis.call('EXISTS', jobs) == 0 then return 0 end

-- Where Redis is full, a step is refused its first write if that needs room. This one needs none, and lets
-- all others pass.
redis.call('HDEL', attempts, '')
for i = 4, #ARGV, 2 do
  local entry, number = ARGV[i], ARGV[i + 1]
  -- Only while the entry is still ours: another may have taken it over.
  if #redis.call('XPENDING', jobs, 'workers', entry, entry, 1, consumer) > 0 then
    if i >= 4 + 2 * failed then
      redis.call('ZADD', ahead, number, entry)
    elseif (redis.call('HGET', attempts, entry) or '0') == number then
      redis.call('HINCRBY', attempts, entry, 1)
    end
  end
end
local released = 0
while true do
  local held = redis.call('XPENDING', jobs, 'workers', '-', '+', 1000, consumer)
  if #held == 0 then break end
  local ids = {}
  for i, entry in ipairs(held) do ids[i] = entry[1] end
  ids[#ids + 1] = 'JUSTID'
  redis.call('XCLAIM', jobs, 'workers', 'released', 0, unpack(ids))
  released = released + #held
end
if ends then
  redis.call('XGROUP', 'DELCONSUMER', jobs, 'workers', consumer)
  redis.call('DEL', alive)
end
return released
