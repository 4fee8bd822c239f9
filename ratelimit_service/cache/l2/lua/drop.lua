-- Removes a value and ends the lease of its load, which may have read what is no longer true.
-- KEYS: value, lease. ARGV: channel (empty: none), name to announce. Returns whether there was a value.
local was = redis.call('UNLINK', KEYS[1])
redis.call('DEL', KEYS[2])
if ARGV[1] ~= '' then redis.call('PUBLISH', ARGV[1], ARGV[2]) end
return was
