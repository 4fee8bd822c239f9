-- Reads a tag's version, or gives it a new one; a version is never used twice, even if the key was lost meanwhile.
-- KEYS: tag. ARGV: '1' for a new version, lifetime (ms), channel (empty: none), name to announce. Returns the version.
local version = tonumber(redis.call('GET', KEYS[1]) or '0')
if version == 0 or ARGV[1] == '1' then
  local now = redis.call('TIME')
  -- Server time in microseconds: below 2^53, so exact in a Lua number.
  version = math.max(now[1] * 1000000 + now[2], version + 1)
  redis.call('SET', KEYS[1], string.format('%.0f', version), 'PX', ARGV[2])
  if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
  -- See store.lua.
  redis.call('EXISTS', KEYS[1])
elseif redis.call('PTTL', KEYS[1]) * 2 < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('EXISTS', KEYS[1])
end
return string.format('%.0f', version)
