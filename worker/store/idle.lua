-- idle: a collection has no backlog, so what announced it may be forgotten.
--
-- `<prefix>:busy`, which on Redis Cluster is on another node, has `<collection> <epoch>` for each collection
-- with a backlog. Whoever adds to a backlog announces it there first, so that no kill comes between, and adds
-- under that epoch alone. Here the epoch ends before its announcement is deleted: what was announced, and is
-- not added yet, is refused and announced anew; and that is another announcement than the one deleted.
--
-- KEYS  1 jobs  2 epoch (string; none is an epoch too. Nobody is in between announcing and adding for an hour)
-- ARGV  1 epoch announced  2 one that never was
-- ->    1 if there is no backlog
local jobs, epoch = unpack(KEYS)
if redis.call('XLEN', jobs) > 0 then return 0 end
if (redis.call('GET', epoch) or '') == ARGV[1] then redis.call('SET', epoch, ARGV[2], 'EX', 3600) end
return 1
