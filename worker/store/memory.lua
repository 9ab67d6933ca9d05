-- memory: what stored vectors take, by Redis' own count, of some that lie evenly over the collection.
--
-- KEYS  1 done
-- ARGV  1 doc-key prefix  2 how many to look at
-- ->    {allocator of Redis, vectors stored, bytes of `done`, then per vector: its bytes, the field with its numbers, their length}
local done, doc_prefix, looks = KEYS[1], ARGV[1], tonumber(ARGV[2])
local size = redis.call('XLEN', done)
local allocator = string.match(redis.call('INFO', 'memory'), 'mem_allocator:(%a+)')
local reply = {allocator or '', size, redis.call('MEMORY', 'USAGE', done) or 0}
if size == 0 then return reply end
local first = tonumber(string.match(redis.call('XRANGE', done, '-', '+', 'COUNT', 1)[1][1], '^%d+'))
local last = tonumber(string.match(redis.call('XREVRANGE', done, '+', '-', 'COUNT', 1)[1][1], '^%d+'))
for n = 0, looks - 1 do
  local number = string.format('%.0f-0', first + math.floor((last - first) * n / looks))
  local doc = doc_prefix .. redis.call('XRANGE', done, number, '+', 'COUNT', 1)[1][2][2]
  for _, field in ipairs({'vector', 'float32', 'float16', 'int8'}) do
    local numbers = redis.call('HSTRLEN', doc, field)
    if numbers > 0 then -- it was not deleted by hand
      reply[#reply + 1] = redis.call('MEMORY', 'USAGE', doc, 'SAMPLES', 0)
      reply[#reply + 1] = field
      reply[#reply + 1] = numbers
      break
    end
  end
end
return reply
