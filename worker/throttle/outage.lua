-- outage: do failures show that the API is down, and how many texts may the next one cost? Pure functions of what is known
-- of a model. An answer of 500 charges its texts, and charges them again when they are sent again. The fields (`failures`,
-- `failing`, `between`, `credit`, `losing`) are listed in state.lua.
local outage = {}

local FULL = 100 -- texts: the API takes no more in a request
-- Texts of credit: at first, three full requests; at most; and where a charged failure is no worry any more.
local START, MOST, SAFE = 300, 2000, 1000
local SHARE = 0.15 -- of what passes may be charged for nothing
local CAREFUL = 4 -- a request takes this part of the credit: a failure now and then would keep it at nothing otherwise
local FEWEST = 3 -- failures in a row before the fleet waits: one text that the API chokes on must not slow it
local CHANCE = 11.5 -- -ln of 1 in 100,000
local SELDOM = 0.01 -- failures between two passes that count as none
local MEMORY = 8 -- runs of passes over which failures are averaged
local FIRST, LONGEST = 500, 15000 -- ms of the first wait, and of the longest
local AWAY = 0.1 -- a return is found in this part of the time that the API was away

-- How many failures in a row happen by chance once in 100,000 times, where `between` come between two passes.
local function by_chance(between)
  if between < SELDOM then return FEWEST end
  return math.max(FEWEST, CHANCE / math.log((1 + between) / between))
end

-- Most texts in the next request; nil: none while so many requests are in flight.
function outage.most(m, in_flight)
  if not m.losing then return FULL end
  if (m.failures or 0) >= FEWEST then return 1 end
  if in_flight > 0 and m.credit < FULL * (in_flight + 1) then return nil end
  if m.credit >= FULL then return FULL end
  return math.max(1, math.floor(m.credit / CAREFUL))
end

-- {texts}
function outage.passed(m, e)
  local between = ((m.between or 0) * (MEMORY - 1) + (m.failures or 0)) / MEMORY
  m.between = between > SELDOM and between or nil
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
  local beyond = m.failures - (e.charged and FEWEST or by_chance(m.between or 0))
  if beyond < 0 then return nil end
  local longest = math.min(FIRST * 2 ^ math.min(beyond, 10), LONGEST)
  return math.max(FIRST, math.min(AWAY * (e.now - m.failing), longest))
end

return outage
