-- renew: give a stored vector the latest meta of its text, which is the same as before. To be required.
--
-- It gets a new number, too, so that it is exported again. A job without meta changes nothing.
--
-- ->    a function from the key of a vector, its id, and the meta, which may be nil; whether the vector got it
return function(info, done)
  return function(doc, id, meta)
    if not meta or meta == '' or redis.call('HGET', doc, 'meta') == meta then return false end
    local hash = redis.call('HGET', doc, 'hash')
    local head, before, cached = string.match(hash, '^(%d+) (%d+)(c?)$', 17)
    local number = string.format('%.0f', redis.call('HINCRBY', info, 'commits', 1))
    redis.call('XADD', done, number .. '-0', 'id', id)
    redis.call('XDEL', done, before .. '-0')
    redis.call('HSET', doc, 'meta', meta, 'hash', string.sub(hash, 1, 16) .. head .. ' ' .. number .. cached)
    return true
  end
end
