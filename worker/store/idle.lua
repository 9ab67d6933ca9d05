-- idle: a collection has no backlog, so what announced it may be forgotten, and its memory packed.
--
-- `<prefix>:busy`, which on Redis Cluster is on another node, has `<collection> <epoch>` for each collection
-- with a backlog. A producer announces the collection there before it adds to the backlog, and adds only under
-- the epoch of its announcement. Here the epoch ends before its announcement is deleted. So jobs that were
-- announced but not yet added are refused, and the producer announces them again, under a new epoch.
--
-- Redis gives the last node of a stream 4 KB, whatever is in it: of a small collection that is more than all the
-- rest beside its vectors. A copy has what it needs.
--
-- KEYS  1 jobs  2 epoch (string; a missing key is the epoch ''. It lasts an hour: longer than a producer needs
--       from announcing to adding)  3 done  4 packed (stream; here alone)  5 ahead (see keys.py)
-- ARGV  1 epoch announced  2 a new epoch
-- ->    1 if there is no backlog
local jobs, epoch, done, packed, ahead = unpack(KEYS)
local LARGE = 1000 -- vectors; 4 KB are little beside them, and a copy takes time
if redis.call('XLEN', jobs) > 0 then return 0 end
redis.call('DEL', ahead) -- it names only what has left
-- A slice that was killed after its last commit holds nothing, and no claim comes any more that would remove it.
local consumers = redis.call('EXISTS', jobs) == 1 and redis.call('XINFO', 'CONSUMERS', jobs, 'workers') or {}
for _, consumer in ipairs(consumers) do
  local name = require 'field'(consumer, 'name')
  if name ~= 'released' and require 'field'(consumer, 'pending') == 0 then
    redis.call('XGROUP', 'DELCONSUMER', jobs, 'workers', name)
  end
end
if (redis.call('GET', epoch) or '') == ARGV[1] then redis.call('SET', epoch, ARGV[2], 'EX', 3600) end
local size = redis.call('XLEN', done)
if size > 0 and size < LARGE then
  redis.pcall('COPY', done, packed, 'REPLACE') -- a server without it, or without room, leaves it as it is
  redis.pcall('COPY', packed, done, 'REPLACE')
  redis.call('DEL', packed)
end
return 1
