-- renumber: give new numbers to stored vectors whose numbers a file already uses for other vectors.
--
-- The new ones are above all numbers in the file. This is needed after Redis has lost data, and counts from a
-- lower number again.
--
-- KEYS  1 info  2 done
-- ARGV  1 doc-key prefix  2 the highest number in a file
--       3 the collection's life that the vectors are of (`born`, see add.lua), or '' for any
--       then per vector: number, id
local info, done = unpack(KEYS)
local doc_prefix, highest = ARGV[1], ARGV[2]

if ARGV[3] ~= '' and ARGV[3] ~= redis.call('HGET', info, 'born') then return end
-- First a command that takes no memory: a script that has begun to write may go on in a full Redis.
redis.call('XDEL', done, '0-1')
if tonumber(redis.call('HGET', info, 'commits') or '0') < tonumber(highest) then
  redis.call('HSET', info, 'commits', highest)
end
for i = 4, #ARGV, 2 do
  local number, id = ARGV[i], ARGV[i + 1]
  local hash = redis.call('HGET', doc_prefix .. id, 'hash')
  local seq, at, cached = string.match(hash or '', '^(%d+) (%d+)(c?)$', 17)
  if at == number then
    redis.call('XDEL', done, number .. '-0')
    at = string.format('%.0f', redis.call('HINCRBY', info, 'commits', 1))
    redis.call('HSET', doc_prefix .. id, 'hash', string.sub(hash, 1, 16) .. seq .. ' ' .. at .. cached)
    redis.call('XADD', done, at .. '-0', 'id', id)
  end
end
