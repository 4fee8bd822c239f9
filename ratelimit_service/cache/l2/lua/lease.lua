-- Asks for the right to load a value for all replicas.
-- KEYS: value, lease. ARGV: owner, lease (ms), SHA-1 of a value that will not do (empty: any will).
-- Returns {0, payload}: it is there; {1, lease}: load it, and store it with this lease;
-- {2, ms}: another loads it, for that long at the most unless it renews.
-- Both keys are read, so that tracking tells this connection when either changes: waiters need not poll.
local payload = redis.call('GET', KEYS[1])
local held = redis.call('GET', KEYS[2])
if payload and (ARGV[3] == '' or redis.sha1hex(payload) ~= ARGV[3]) then return {0, payload} end
if held then return {2, redis.call('PTTL', KEYS[2])} end
-- The fence: time of the one server, then the owner, for two leases in one microsecond.
local now = redis.call('TIME')
local lease = string.format('%d%06d:%s', now[1], now[2], ARGV[1])
redis.call('SET', KEYS[2], lease, 'PX', ARGV[2])
return {1, lease}
