-- Gives a lease back, or prolongs it, if it is still held.
-- KEYS: lease. ARGV: lease, ms to prolong (0: give back), channel (empty: none), name to announce.
-- Returns whether it was still held.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '0' then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
redis.call('DEL', KEYS[1])
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return 1
