-- priorities: how many texts of a claim come of each priority. A pure function: no Redis, no clock. `claim` is composed
-- with it, and the simulation of the tests runs the same file. To be required.
--
-- The first one first: interactive texts, normal ones that wait behind bulk, and all others in the order of the stream.
-- Each goes before those behind it, but each of these keeps a part of every claim while texts of it wait: LEAST, which
-- grows to MOST while its oldest text waits for AGEING. So nothing starves, whatever goes before it.
local priorities = {}

local LEAST, MOST = 0.1, 0.25 -- of a claim
local AGEING = 600000 -- ms
local GOLDEN = 0.6180339887498949 -- its multiples, without their whole part, are even in [0, 1) from the first one on
priorities.NORMAL = 2 ^ 52 -- added to the scores of the second priority, see `ahead` in keys.py

-- count: texts of the claim; waiting: how many wait of each priority; ages: ms that the oldest of each has waited; turn:
-- the number of the claim. Of claims too small for all parts, each priority gets its own in turn.
-- -> how many of each priority
function priorities.parts(count, waiting, ages, turn)
  local kept, share, behind = {}, 0, 0
  local chance = turn * GOLDEN % 1
  for n = #waiting, 2, -1 do
    kept[n] = 0
    if waiting[n] > 0 then
      share = share + math.min(MOST, LEAST + (MOST - LEAST) * math.max(0, ages[n]) / AGEING)
      local all = math.floor(count * share + chance)
      kept[n] = math.min(waiting[n], all - behind)
      behind = all
    end
  end
  local parts, left = {}, count
  for n = 1, #waiting do
    local others = 0
    for behind_it = n + 1, #waiting do others = others + kept[behind_it] end
    parts[n] = math.max(0, math.min(waiting[n], left - others))
    left = left - parts[n]
  end
  return parts
end

return priorities
