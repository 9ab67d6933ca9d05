-- bookmark: whether a collection is as a run left it, so that what its bookmark says still holds. To be required.
--
-- Each text that is added and each meta that is replaced raises `seq`, each id that is deleted `removed`. So this
-- sees also what producers and deletions of an earlier version did.
return function(info, bookmark)
  local now = redis.call('HMGET', info, 'born', 'seq', 'removed')
  local was = redis.call('HMGET', bookmark, 'born', 'seq', 'removed')
  return (now[1] or '') == was[1] and (now[2] or '0') == was[2] and (now[3] or '0') == was[3]
end
