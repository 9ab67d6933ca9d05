-- field: the value of a field of a stream's entry, or of another flat list of names and values. To be required.
return function(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end
