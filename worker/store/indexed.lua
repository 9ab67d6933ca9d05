-- indexed: note in a collection which index it has, or with '' that it has none; not in another life.
--
-- KEYS  1 info
-- ARGV  1 what to note (see keys.py)  2 the collection's life (`born`, see add.lua)
--       3 what must be noted there now, '' for none; not given: anything
-- ->    1; 0 in another life; -1 if something else is noted there
local info = KEYS[1]
if redis.call('EXISTS', info) == 0 then return 0 end
local born, index = unpack(redis.call('HMGET', info, 'born', 'index'))
if (born or '') ~= ARGV[2] then return 0 end
if ARGV[3] and (index or '') ~= ARGV[3] then return -1 end
if ARGV[1] == '' then
  redis.call('HDEL', info, 'index')
else
  redis.call('HSET', info, 'index', ARGV[1])
end
return 1
