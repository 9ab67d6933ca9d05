-- exported: note how far a folder holds the collection's vectors. The number only grows: if it is lower than
-- the folder's own, Redis has lost data.
--
-- KEYS  1 info
-- ARGV  1 the folder's token  2 the highest number in a file  3 the collection's life (`born`, see add.lua)
-- ->    1; 0 in another life
if redis.call('HGET', KEYS[1], 'born') ~= ARGV[3] then return 0 end
local field = 'exported:' .. ARGV[1]
if tonumber(redis.call('HGET', KEYS[1], field) or '0') < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], field, ARGV[2])
end
return 1
