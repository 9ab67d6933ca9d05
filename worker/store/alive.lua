-- alive: whether a consumer has a heartbeat.
--
-- Its key expires. Where Redis' clock was set back since, it would do so much too late: a key that promises
-- to live longer than any heartbeat does gets the longest time there is, and whoever is alive renews it.
return function(key, longest)
  local left = redis.call('PTTL', key)
  if left == -1 or left > longest then redis.call('PEXPIRE', key, longest) end
  return left ~= -2
end
