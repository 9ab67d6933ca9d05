-- indexed: note in a collection which index it has, or with '' that it has none; not in another life.
--
-- KEYS  1 info
-- ARGV  1 what to note (see keys.py)  2 the collection's life (`born`, see add.lua)
-- ->    1, or 0 in another life
if (redis.call('HGET', KEYS[1], 'born') or '') ~= ARGV[2] then return 0 end
if ARGV[1] == '' then
  redis.call('HDEL', KEYS[1], 'index')
else
  redis.call('HSET', KEYS[1], 'index', ARGV[1])
end
return 1
