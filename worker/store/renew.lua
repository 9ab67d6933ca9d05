-- renew: give a stored vector the latest meta of its text, which is the same as before. To be required.
--
-- It gets a new number, too, so that it is exported again. A job without meta changes nothing. A job that was queued
-- also gives its seq: the text was enqueued then.
--
-- ->    a function from the key of a vector, its id, the meta, which may be nil, and the seq of its job or nil; whether
--       the vector got the meta
return function(info, done)
  return function(doc, id, meta, seq)
    local is_new = meta and meta ~= '' and redis.call('HGET', doc, 'meta') ~= meta
    if not is_new and not seq then return false end
    local hash = redis.call('HGET', doc, 'hash')
    local head, number, cached = string.match(hash, '^(%d+) (%d+)(c?)$', 17)
    if is_new then
      local before = number
      number = string.format('%.0f', redis.call('HINCRBY', info, 'commits', 1))
      redis.call('XADD', done, number .. '-0', 'id', id)
      redis.call('XDEL', done, before .. '-0')
      redis.call('HSET', doc, 'meta', meta)
    end
    redis.call('HSET', doc, 'hash', string.sub(hash, 1, 16) .. (seq or head) .. ' ' .. number .. cached)
    return is_new
  end
end
