-- hits: the ids that the index of a collection finds nearest to a query.
--
-- The caller reads them and decides: an id may have another text by now, or none.
--
-- KEYS  1 index  2 info
-- ARGV  1 the layout of the collection's vectors ('' for none)  2 how many  3 how many candidates an approximate
--       index looks at  4 doc-key prefix  5 the query as float32
--       then per field of a doc that may hold its vector: its name, the query in its type
-- ->    {'none'}  there is no index
--       {'lost'}  it was there: Redis does not have it any more
--       {'outdated'}  it is of vectors in another layout
--       {'building', the share that is done}
--       {'ready', the number up to which vectors are in it ('' if it follows them by itself), then ids}
local index, info = KEYS[1], KEYS[2]
local layout, count, candidates, doc_prefix, query = unpack(ARGV, 1, 5)

local said = redis.call('HGET', info, 'index')
if not said then return {'none'} end
local kind, number, its = string.match(said, '^(%w+) (%d*) ?(.*)$')
if its ~= layout then return {'outdated'} end

if kind == 'set' then
  if redis.call('EXISTS', index) == 0 then return {'lost'} end
  return {'ready', number, unpack(redis.call('VSIM', index, 'FP32', query, 'COUNT', count, 'EF', candidates))}
end

local state = redis.pcall('FT.INFO', index)
if state.err then return {'lost'} end
local facts = {}
for i = 1, #state - 1, 2 do facts[state[i].ok or state[i]] = state[i + 1] end -- a name may be a status
if tonumber(facts.percent_indexed) < 1 or tonumber(facts.indexing) ~= 0 then
  return {'building', tostring(facts.percent_indexed)}
end
if tonumber(facts.hash_indexing_failures) > 0 then return {'lost'} end
local found = {'ready', ''}
for i = 6, #ARGV, 2 do
  local near = '*=>[KNN ' .. count .. ' @' .. ARGV[i] .. ' $query' .. (kind == 'hnsw' and ' EF_RUNTIME ' .. candidates or '') .. ']'
  local reply = redis.call('FT.SEARCH', index, near, 'PARAMS', 2, 'query', ARGV[i + 1], 'NOCONTENT',
    'LIMIT', 0, count, 'TIMEOUT', 30000, 'DIALECT', 2)
  for n = 2, #reply do found[#found + 1] = string.sub(reply[n], #doc_prefix + 1) end
end
return found
