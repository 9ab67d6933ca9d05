-- bucket: which of the hashes <evicted prefix><bucket> has an id, by its digest (linear hashing, see evict.lua).
--
-- ->    a function from the digest to the bucket; the largest power of two up to `buckets`
return function(buckets)
  local whole = 1
  while whole * 2 <= buckets do whole = whole * 2 end
  return function(key)
    local a, b, c, d = string.byte(key, 1, 4)
    local bucket = (((a * 256 + b) * 256 + c) * 256 + d) % (whole * 2)
    return bucket < buckets and bucket or bucket - whole
  end, whole
end
