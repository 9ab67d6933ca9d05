-- entry: the entry of a job in the stream, by its number; asked for in the order of the numbers.
--
-- Both halves of an entry's id grow, so it is searched from the one found before to the last, by turns at the
-- average rate and in the middle: each look costs what its text is long.
--
-- ->    a function from a job's number to its entry as XRANGE has it, or nil
return function(jobs)
  local function halves(entry)
    local ms, seq = string.match(entry[1], '(%d+)-(%d+)')
    return tonumber(ms), tonumber(seq)
  end

  local first = redis.call('XRANGE', jobs, '-', '+', 'COUNT', 1)[1]
  local last = redis.call('XREVRANGE', jobs, '+', '-', 'COUNT', 1)[1]
  local low, low_seq
  if first then low, low_seq = halves(first) end
  return function(seq)
    if not first then return end
    local high, high_seq = halves(last)
    local by_rate, looked = true, nil
    while low_seq <= seq and seq <= high_seq do
      if looked ~= low then
        looked = low
        local entry = string.format('%.0f-%.0f', low, seq)
        local found = redis.call('XRANGE', jobs, entry, entry)[1]
        if found then return found end
      end
      if low >= high then return end
      local share = by_rate and (seq - low_seq) / (high_seq - low_seq) or 0.5
      by_rate = not by_rate
      local middle = low + math.max(1, math.floor((high - low) * share))
      local found = redis.call('XRANGE', jobs, string.format('%.0f-0', middle), '+', 'COUNT', 1)[1]
      local ms, at = halves(found or last)
      if found and at <= seq then
        low, low_seq = ms, at
      else
        high, high_seq = middle - 1, at
      end
    end
  end
end
