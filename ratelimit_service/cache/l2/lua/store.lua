-- Keeps a value, whoever loads it meanwhile: their lease ends, so that what they read before is not stored over it.
-- KEYS: value, lease. ARGV: payload, lifetime (ms), channel (empty: none), name to announce.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
-- Reading the key has Redis tell this connection of the next change; the SET above ended that.
redis.call('EXISTS', KEYS[1])
return 1
