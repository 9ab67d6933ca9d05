-- last: the entry up to which the workers have read the stream; those that overtook others come after it. To be required.
return function(jobs)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', jobs)) do
    if require 'field'(group, 'name') == 'workers' then return require 'field'(group, 'last-delivered-id') end
  end
  return '0-0'
end
