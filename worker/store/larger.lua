-- larger: stored vectors that are not in the layout of their collection yet, in the order of their numbers.
--
-- KEYS  1 done  2 info
-- ARGV  1 doc-key prefix  2 number after which to begin  3 how many to look at  4 how many to return at most
--       5 dtype of the layout  6 bytes of a vector in the layout
-- ->    {born (see add.lua), layout or '', how many were looked at, the number of the last of them or '',
--       then per vector that is larger: id, hash, the field that it is in (see commit.lua for both), its value}
local done, info = KEYS[1], KEYS[2]
local doc_prefix, after, looks, most, dtype, size = unpack(ARGV)
size, most = tonumber(size), 4 + 4 * tonumber(most)
local born, layout = unpack(redis.call('HMGET', info, 'born', 'layout'))
local FIELDS = {'vector', 'float32', 'float16', 'int8'}
local reply = {born or '', layout or '', 0, ''}
for n, entry in ipairs(redis.call('XRANGE', done, string.format('(%s-0', after), '+', 'COUNT', looks)) do
  local id = entry[2][2]
  local doc = doc_prefix .. id
  if redis.call('HSTRLEN', doc, dtype) ~= size then
    local found = redis.call('HMGET', doc, 'hash', unpack(FIELDS))
    for n, field in ipairs(FIELDS) do
      if found[1] and found[1 + n] then
        local at = #reply
        reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = id, found[1], field, found[1 + n]
      end
    end
  end
  reply[3], reply[4] = n, string.match(entry[1], '^%d+')
  if #reply >= most then break end
end
return reply
