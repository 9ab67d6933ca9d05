-- release: give leased entries back to the backlog; at the end of a slice also take the consumer away.
--
-- A failure is counted by the number that the lease had: a second copy of the same call counts nothing.
--
-- KEYS  1 jobs  2 attempts  3 alive key of the consumer
-- ARGV  1 consumer  2 '1': the slice ends
--       3.. per entry that failed alone: entry, how often it had failed before
-- ->    number of entries released
local jobs, attempts, alive = unpack(KEYS)
local consumer, ends = ARGV[1], ARGV[2] == '1'
if redis.call('EXISTS', jobs) == 0 then return 0 end

-- Where Redis is full, a step is refused its first write if that needs room. This one needs none, and lets
-- all others pass.
redis.call('HDEL', attempts, '')
for i = 3, #ARGV, 2 do
  local entry, before = ARGV[i], ARGV[i + 1]
  -- Counted only while the entry is still ours: another may have taken it over.
  if #redis.call('XPENDING', jobs, 'workers', entry, entry, 1, consumer) > 0
    and (redis.call('HGET', attempts, entry) or '0') == before then
    redis.call('HINCRBY', attempts, entry, 1)
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
