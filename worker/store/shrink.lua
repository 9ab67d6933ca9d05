-- shrink: stored vectors in the layout of their collection, in place of larger forms of them.
--
-- A vector changes only if it is the one that the caller has read, so a copy of the call that arrives late does
-- nothing. Its number and all that is kept beside it stay.
--
-- KEYS  1 info  2 done
-- ARGV  1 doc-key prefix  2 the collection's life (`born`, see add.lua)  3 its layout  4 dtype of the layout
--       then per vector: id, hash (see commit.lua), the vector in the layout
-- ->    how many were larger; -1 in another life or layout
local info, done = unpack(KEYS)
local doc_prefix, dtype = ARGV[1], ARGV[4]
local born, layout = unpack(redis.call('HMGET', info, 'born', 'layout'))
if (born or '') ~= ARGV[2] or layout ~= ARGV[3] then return -1 end
-- First a command that takes no memory: a script that has begun to write may go on in a full Redis.
redis.call('XDEL', done, '0-1')
local shrunk = 0
for i = 5, #ARGV, 3 do
  local doc, hash, vector = doc_prefix .. ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('HGET', doc, 'hash') == hash and redis.call('HSTRLEN', doc, dtype) ~= #vector then
    -- The larger form goes first: a hash that had one field more would keep a larger table.
    redis.call('HDEL', doc, 'vector', 'float32', 'float16', 'int8')
    redis.call('HSET', doc, dtype, vector)
    shrunk = shrunk + 1
  end
end
return shrunk
