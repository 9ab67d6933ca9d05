-- The loop of a simulated fleet: threads that all want to send, and the throttle's policy, under a virtual clock.
-- Time jumps from event to event. What the server does with a request is `server.answer`, in Python.
--
-- ... ->  policy, options {threads, most, latency, pause, jitter, ...: see simulation.py}, answer, random
--   answer(now, texts) -> seconds until the answer, outcome, facts as they are reported or nil
--   random()           -> a list of numbers in [0, 1), refilled by the thousand
local policy, fleet, answer, more = ...

local events, order, permits = {}, 0, 0 -- a heap of {time, order, step, ...}
local flights, in_flight = {}, 0
local chances, used = {}, 0

fleet.state = {model = {}, endpoint = {}}
fleet.asks, fleet.finished, fleet.resting, fleet.waits = 0, 0, 0, {}

local function random()
  used = used + 1
  if chances[used] == nil then chances, used = more(), 1 end
  return chances[used]
end

local function uniform(low, high) return low + (high - low) * random() end

local function is_earlier(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end

local function push(event)
  local at = #events + 1
  events[at] = event
  while at > 1 do
    local parent = math.floor(at / 2)
    if not is_earlier(event, events[parent]) then break end
    events[at], events[parent], at = events[parent], event, parent
  end
end

local function pop()
  local first, last, size = events[1], events[#events], #events - 1
  events[#events] = nil
  if size == 0 then return first end
  local at = 1
  while 2 * at <= size do
    local child = 2 * at
    if child < size and is_earlier(events[child + 1], events[child]) then child = child + 1 end
    if not is_earlier(events[child], last) then break end
    events[at], at = events[child], child
  end
  events[at] = last
  return first
end

local function after(delay, step, permit, admitted, texts, outcome, facts)
  order = order + 1
  push({fleet.now + delay, order, step, permit, admitted, texts, outcome, facts})
end

-- Redis' clock has microseconds.
local function clock() return math.floor(fleet.now * 1e6 + 0.5) / 1e3 end

local function lateness() return 0.001 - math.log(1 - random()) * fleet.jitter end

local ask
local persons = {} -- permit -> what the person who has it does with the outcome

local function report(permit, admitted, texts, outcome, facts)
  local person = persons[permit]
  flights[permit], persons[permit], in_flight = nil, nil, in_flight - 1
  local event = {now = clock(), admitted = admitted, outcome = outcome, reason = '429', most = fleet.most, texts = texts}
  for name, fact in pairs(facts or {}) do event[name] = fact end
  policy.report(fleet.state, event)
  if person then return person(outcome) end
  if outcome == 'deferred' and fleet.work then fleet.work = fleet.work + 1 end
  if outcome == 'passed' then fleet.finished = fleet.now end
  after(outcome == 'deferred' and 0.0005 or fleet.pause * uniform(0.5, 1.5), ask)
end

local function arrive(permit, admitted, texts)
  local seconds, outcome, facts = answer(fleet.now, texts)
  if not seconds then seconds = fleet.latency * uniform(0.7, 1.3) end
  after(seconds, report, permit, admitted, texts, outcome, facts)
end

-- The verdict and its number; and the permit, if it is one.
local function try(urgent)
  local state, permit = fleet.state, permits
  permits, fleet.asks = permits + 1, fleet.asks + 1
  local verdict, number = policy.ask(state, {
    urgent = urgent,
    now = clock(),
    permit = permit,
    in_flight = in_flight,
    probe_alive = flights[state.probe or ''],
    model_probe_alive = flights[state.model.probe or ''],
    most = fleet.most,
    per_second = fleet.per_second,
  })
  if verdict == 'go' then flights[permit], in_flight = true, in_flight + 1 end
  return verdict, number, permit
end

function ask()
  if fleet.now < fleet.resting then return after(fleet.resting - fleet.now + uniform(0, 0.02), ask) end
  if fleet.work and fleet.work <= 0 then return end
  local verdict, number, permit = try(false)
  if verdict == 'wait' or verdict == 'full' then
    -- After six seconds the worker gives up; a wake-up brings it back.
    return after(number > 6000 and uniform(0.5, 1.5) or number / 1000 + lateness(), ask)
  end
  assert(verdict == 'go', verdict)
  if fleet.work then fleet.work = fleet.work - 1 end
  after(lateness(), arrive, permit, math.floor(clock()), number)
end

-- Let this many seconds pass.
function fleet.go(seconds)
  local stop = fleet.now + seconds
  while events[1] and events[1][1] <= stop do
    local event = pop()
    fleet.now = event[1]
    event[3](event[4], event[5], event[6], event[7], event[8])
  end
  fleet.now = stop
end

-- Let this many seconds pass, in which one request is sent now and then, while all other threads wait.
function fleet.trickle(seconds, every)
  local waiting, stop = events, fleet.now + seconds
  events = {}
  while fleet.now < stop do
    fleet.work = 1
    after(0, ask)
    fleet.go(every)
  end
  fleet.work = nil
  for _, event in ipairs(waiting) do
    event[1] = fleet.now + event[1] % 0.02
    push(event)
  end
end

-- From now on someone wants a text, and so many seconds after its answer the next; `waits` has how long each took.
function fleet.person(every, urgent)
  local come
  local function want(begun)
    local verdict, number, permit = try(urgent)
    if verdict ~= 'go' then return after(number > 6000 and 1 or number / 1000 + lateness(), want, begun) end
    persons[permit] = function(outcome)
      if outcome ~= 'passed' then return after(0.0005, want, begun) end
      fleet.waits[#fleet.waits + 1] = fleet.now - begun
      after(every * uniform(0.5, 1.5), come)
    end
    after(lateness(), arrive, permit, math.floor(clock()), 1)
  end
  function come() want(fleet.now) end
  after(every, come)
end

-- Move the clock, and nothing else.
function fleet.set_clock(seconds)
  fleet.now = fleet.now + seconds
  for _, event in ipairs(events) do event[1] = event[1] + seconds end
end

for _ = 1, fleet.threads do after(uniform(0, 0.02), ask) end
return fleet
