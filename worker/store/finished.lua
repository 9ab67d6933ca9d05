-- finished: stored vectors in the order of their commits, with what is kept beside them.
--
-- KEYS  1 done  2 info
-- ARGV  1 doc-key prefix  2 number after which to begin  3 how many
-- ->    {born (see add.lua), commits ever, model, layout or '',
--       then per vector: id, if there is a layout the field that its numbers are in (see commit.lua), the numbers,
--       hash, text or '', meta or ''}; without vectors at the end
local done, info = KEYS[1], KEYS[2]
local doc_prefix, after, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local born, commits, model, layout = unpack(redis.call('HMGET', info, 'born', 'commits', 'model', 'layout'))
local fields = layout and {'vector', 'float32', 'float16', 'int8'} or {'vector'}
local rows = {born or '', commits or '0', model or '', layout or ''}
repeat
  local page = redis.call('XRANGE', done, string.format('(%s-0', after), '+', 'COUNT', count)
  for _, entry in ipairs(page) do
    local id = entry[2][2]
    local doc = redis.call('HMGET', doc_prefix .. id, 'hash', 'text', 'meta', unpack(fields))
    for n, field in ipairs(fields) do
      local numbers = doc[3 + n]
      if numbers then -- it was not deleted by hand
        rows[#rows + 1] = id
        if layout then rows[#rows + 1] = field end
        rows[#rows + 1] = numbers
        for i = 1, 3 do rows[#rows + 1] = doc[i] or '' end
        break
      end
    end
    after = string.match(entry[1], '^%d+')
  end
until #rows > 4 or #page == 0
return rows
