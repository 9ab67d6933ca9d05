-- idle: a collection has no backlog, so what announced it may be forgotten.
--
-- `<prefix>:busy`, which on Redis Cluster is on another node, has `<collection> <epoch>` for each collection
-- with a backlog. A producer announces the collection there before it adds to the backlog, and adds only under
-- the epoch of its announcement. Here the epoch ends before its announcement is deleted. So jobs that were
-- announced but not yet added are refused, and the producer announces them again, under a new epoch.
--
-- KEYS  1 jobs  2 epoch (string; a missing key is the epoch ''. It lasts an hour: longer than a producer needs
--       from announcing to adding)
-- ARGV  1 epoch announced  2 a new epoch
-- ->    1 if there is no backlog
local jobs, epoch = unpack(KEYS)
if redis.call('XLEN', jobs) > 0 then return 0 end
if (redis.call('GET', epoch) or '') == ARGV[1] then redis.call('SET', epoch, ARGV[2], 'EX', 3600) end
return 1
