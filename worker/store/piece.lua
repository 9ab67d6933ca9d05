-- piece: whether a text is a piece of the document in its id, which its meta says.
--
-- ->    a function from an id and JSON, which is the meta or has it in the field `within`, to true or false
return function(id, json, within)
  local document = string.match(id, '^(.*)#%d%d%d%d+$')
  local is_json, meta = pcall(cjson.decode, document and json or '')
  if is_json and within and type(meta) == 'table' then meta = meta[within] end
  return is_json and type(meta) == 'table' and meta.parent == document
    and type(meta.start) == 'number' and type(meta['end']) == 'number'
end
