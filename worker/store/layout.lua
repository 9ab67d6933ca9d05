-- layout: give a collection another layout, if it still is as the caller has seen it.
--
-- From then on workers store vectors in it, and readers see all vectors in it.
--
-- KEYS  1 info  2 done
-- ARGV  1 the collection's life (`born`, see add.lua)  2 its layout, '' for none  3 the new one
-- ->    1; 0 in another life or layout: nothing was set
local info, done = unpack(KEYS)
local born, layout = unpack(redis.call('HMGET', info, 'born', 'layout'))
if (born or '') ~= ARGV[1] or (layout or '') ~= ARGV[2] then return 0 end
-- First a command that takes no memory: a script that has begun to write may go on in a full Redis.
redis.call('XDEL', done, '0-1')
redis.call('HSET', info, 'layout', ARGV[3])
return 1
