-- overtake: which of the jobs that are added may overtake others. To be required.
--
-- An interactive one does always: that it is in `ahead` also tells the workers to hurry. A normal one does while bulk waits
-- in front of it: `bulk` in info is the number of the last bulk job, until the stream was read up to it.
--
-- ->    a function from (priority, backlog, `bulk` of info) to nil, if they overtake nothing, or to
--       {waiting(): how many go before those that are added or with them,
--       add(entry, its number): it overtakes others,
--       save(urgent): write `ahead`, and if urgent ones are in it and `urgent` is not nil, announce the collection there}
return function(jobs, ahead)
  local NORMAL = require 'priorities'.NORMAL

  -- Whether the stream has not been read up to this job.
  local function waits(number)
    return tonumber(string.match(require 'last'(jobs), '-(%d+)$')) < tonumber(number)
  end

  return function(priority, backlog, bulk)
    local behind = priority == '' and bulk and backlog > 0 and waits(bulk)
    if priority ~= 'interactive' and not behind then return end
    local offset, members, overtaking = priority == '' and NORMAL or 0, {}, {}

    function overtaking.waiting()
      local named = redis.call('ZCOUNT', ahead, '-inf', behind and '+inf' or string.format('(%.0f', NORMAL))
      return math.min(backlog, named) -- it may name what has left
    end

    function overtaking.add(entry, number)
      members[#members + 1] = string.format('%.0f', offset + number)
      members[#members + 1] = entry
    end

    function overtaking.save(urgent)
      -- What is older than all that is in the stream has left it.
      local first = backlog > 0 and redis.call('XRANGE', jobs, '-', '+', 'COUNT', 1)[1]
      if first then
        for _, from in ipairs({0, NORMAL}) do
          local upto = string.format('(%.0f', from + tonumber(string.match(first[1], '-(%d+)$')))
          redis.call('ZREMRANGEBYSCORE', ahead, string.format('%.0f', from), upto)
        end
      else
        redis.call('DEL', ahead)
      end
      if #members == 0 then return end
      redis.call('ZADD', ahead, 'LT', unpack(members)) -- what is interactive already stays so
      if offset > 0 or not urgent then return end
      local time = redis.call('TIME')
      local name = string.match(jobs, '{([^{}]*)}:jobs$')
      redis.call('ZADD', urgent, string.format('%.0f', time[1] * 1000000 + time[2]), name)
    end

    return overtaking
  end
end
