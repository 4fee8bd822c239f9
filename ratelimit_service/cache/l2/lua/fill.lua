-- Stores what was loaded under a lease, if no other lease, write or removal came between.
-- KEYS: value, lease. ARGV: lease, payload, lifetime (ms), channel (empty: none), name to announce.
-- Returns whether it was stored.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
if ARGV[4] ~= '' then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
-- See store.lua.
redis.call('EXISTS', KEYS[1])
return 1
