-- front: how far the work on a collection is.
--
-- Both halves of an entry's id grow, so the first entry of the stream has the lowest number.
--
-- KEYS  1 jobs  2 info
-- ->    {born (see add.lua) or '', the highest number given to a job, the number of the oldest job that is not done,
--       or 0, backlog}
local jobs, info = KEYS[1], KEYS[2]
local born, seq = unpack(redis.call('HMGET', info, 'born', 'seq'))
local oldest = redis.call('XRANGE', jobs, '-', '+', 'COUNT', 1)[1]
local number = oldest and tonumber(string.match(oldest[1], '-(%d+)$')) or 0
return {born or '', tonumber(seq or '0'), number, redis.call('XLEN', jobs)}
