-- outage: do failures show that the API is down, and how many texts may the next one cost? Pure functions of what is known
-- of a model (see policy.lua). An answer of 500 charges its texts, and charges them again when they are sent again.
--
--   failures, failing  in a row; since when
--   between            failures between two passes, on average
--   credit             texts that failures may charge: a part of what passed, less what was charged for nothing
--   losing             1 from a charged failure until there is much credit again
local outage = {}

local FULL = 100 -- texts in a request
local START, MOST, SAFE = 300, 2000, 1000 -- texts of credit
local SHARE = 0.15 -- of what passes
local FEWEST = 3 -- failures in a row before anyone waits
local LONGEST = 15000 -- ms

-- How many failures in a row come about by chance once in 100,000 times, where `between` come between two passes.
local function by_chance(between)
  if between < 0.01 then return FEWEST end
  return math.max(FEWEST, 11.5 / math.log((1 + between) / between))
end

-- Most texts in the next request; nil: none while so many requests are in flight.
function outage.most(m, in_flight)
  if not m.losing then return FULL end
  if (m.failures or 0) >= FEWEST then return 1 end
  if in_flight > 0 and m.credit < FULL * (in_flight + 1) then return nil end
  if m.credit >= FULL then return FULL end
  return math.max(1, math.floor(m.credit / 4)) -- never all of it: a failure now and then would keep it at nothing
end

-- {texts}
function outage.passed(m, e)
  local between = ((m.between or 0) * 7 + (m.failures or 0)) / 8
  m.between = between > 0.01 and between or nil
  m.credit = math.min(MOST, (m.credit or START) + SHARE * (e.texts or FULL))
  if m.credit >= SAFE then m.losing = nil end
  m.failures, m.failing = nil, nil
end

-- {now, charged, texts} -> ms to wait, or nil
function outage.failed(m, e)
  m.failures, m.failing = (m.failures or 0) + 1, m.failing or e.now
  if e.charged then
    m.credit, m.losing = math.max(0, (m.credit or START) - (e.texts or FULL)), 1
  end
  -- One text that the API chokes on must not slow the fleet: only failures in a row do. The longer it fails, the
  -- longer are the waits, so that the return is found in a tenth of the time that it was away.
  local beyond = m.failures - (e.charged and FEWEST or by_chance(m.between or 0))
  if beyond < 0 then return nil end
  local longest = math.min(500 * 2 ^ math.min(beyond, 10), LONGEST)
  return math.max(500, math.min((e.now - m.failing) / 10, longest))
end

return outage
