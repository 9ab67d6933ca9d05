-- followed: how far a folder holds the tombstones. Those that all folders hold are deleted.
--
-- KEYS  1 info  2 tombstones
-- ARGV  1 the folder's token  2 the highest number of a tombstone in it, -1 while it is compared with the
--       collection  3 the collection's life (`born`, see add.lua)
-- ->    1; 0 in another life
local info, tombstones = KEYS[1], KEYS[2]
if (redis.call('HGET', info, 'born') or '') ~= ARGV[3] then return 0 end
local field, number = 'tombstones:' .. ARGV[1], tonumber(ARGV[2])
if number < 0 or number > tonumber(redis.call('HGET', info, field) or '-1') then
  redis.call('HSET', info, field, ARGV[2])
end
local least = math.huge
for _, field in ipairs(redis.call('HKEYS', info)) do
  if string.match(field, '^tombstones:') then least = math.min(least, redis.call('HGET', info, field)) end
end
redis.call('XTRIM', tombstones, 'MINID', string.format('%.0f-0', least + 1))
return 1
