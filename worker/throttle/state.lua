-- state: what is known of a throttle, from its three hashes and, where it was changed, back into them.
--
--   key       of an endpoint under a key
--   model     of one model under that key; most are empty
--   endpoint  of an endpoint under all keys
--
-- The fields are told in policy.lua.
local state = {}

local TEXTS = {halted = true, held = true, reason = true, probe = true}

local function read(hash)
  local fields, flat = {}, redis.call('HGETALL', hash)
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    fields[name] = TEXTS[name] and value or tonumber(value)
  end
  return fields
end

local function write(hash, fields, before)
  local set, gone = {}, {}
  for name, value in pairs(fields) do
    if before[name] ~= value and type(value) ~= 'table' then
      set[#set + 1] = name
      set[#set + 1] = TEXTS[name] and value or string.format(value % 1 == 0 and '%.0f' or '%.6f', value)
    end
  end
  for name in pairs(before) do
    if fields[name] == nil then gone[#gone + 1] = name end
  end
  if #set > 0 then redis.call('HSET', hash, unpack(set)) end
  if #gone > 0 then redis.call('HDEL', hash, unpack(gone)) end
end

-- What the hashes hold, and how to write what was changed in it since.
function state.open(key, model, endpoint)
  local hashes = {key, model, endpoint}
  local tables, before = {}, {}
  for n, hash in ipairs(hashes) do
    tables[n], before[n] = read(hash), {}
    for name, value in pairs(tables[n]) do before[n][name] = value end
  end
  local s = tables[1]
  s.model, s.endpoint = tables[2], tables[3]
  return s, function()
    write(key, s, before[1])
    write(model, s.model, before[2])
    write(endpoint, s.endpoint, before[3])
  end
end

return state
