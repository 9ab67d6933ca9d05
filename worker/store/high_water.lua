-- high_water: how many go before the jobs that a producer would add now, or with them.
--
-- KEYS  1 jobs  2 info  3 ahead (see keys.py)
-- ARGV  1 priority: 'interactive', 'bulk', or '' for normal
-- ->    {how many, 1 if they overtake others}
local jobs, info, ahead = unpack(KEYS)
local backlog = redis.call('XLEN', jobs)
local overtaking = require 'overtake'(jobs, ahead)(ARGV[1], backlog, redis.call('HGET', info, 'bulk'))
if not overtaking then return {backlog, 0} end
return {overtaking.waiting(), 1}
