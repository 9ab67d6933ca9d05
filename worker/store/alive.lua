-- alive: whether a consumer has a heartbeat.
--
-- Its key expires. If Redis' clock was set back since, it would expire much too late. So a time above `longest`
-- is cut to that; whoever is alive renews it.
return function(key, longest)
  local left = redis.call('PTTL', key)
  if left == -1 or left > longest then redis.call('PEXPIRE', key, longest) end
  return left ~= -2
end
