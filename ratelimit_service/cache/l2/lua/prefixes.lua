-- Reads what was invalidated by prefix, or adds a prefix.
-- KEYS: prefixes. ARGV: '1' to add, the prefix, most that are kept, channel (empty: none), name to announce.
-- Returns MessagePack of {newest version, {{version, prefix}, …}}, oldest first.
-- A value is void if its own version is below that of a prefix of its key. Where the key is lost, everything before
-- now is void: what it said is not known. Beyond the most, the two oldest become their common beginning, which voids
-- more than was asked and never less.
local function begins(text, start) return string.sub(text, 1, #start) == start end
local packed = redis.call('GET', KEYS[1])
local state = packed and cmsgpack.unpack(packed)
local now = redis.call('TIME')
local version = now[1] * 1000000 + now[2]
local add, prefix = ARGV[1] == '1', ARGV[2]
if not state then state = {0, {}}; add = true; prefix = '' end
if add then
  version = math.max(version, state[1] + 1)
  local kept = {}
  for _, each in ipairs(state[2]) do
    if not begins(each[2], prefix) then kept[#kept + 1] = each end
  end
  kept[#kept + 1] = {version, prefix}
  while #kept > tonumber(ARGV[3]) do
    local first, second = table.remove(kept, 1), kept[1]
    local size = 0
    while size < #first[2] and string.byte(first[2], size + 1) == string.byte(second[2], size + 1) do size = size + 1 end
    second[2] = string.sub(first[2], 1, size)
  end
  state = {version, kept}
  packed = cmsgpack.pack(state)
  redis.call('SET', KEYS[1], packed)
  if ARGV[4] ~= '' then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
  -- See store.lua.
  redis.call('EXISTS', KEYS[1])
end
return packed
