-- Keeps a revocation, and tells the nodes.
-- KEYS: revocations
-- ARGV: tag, field (whom), seconds since 1970, command that tells, where, and what
-- Returns tag
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[2]) or 0)
if tonumber(ARGV[3]) > known then redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) end
redis.call(ARGV[4], ARGV[5], ARGV[6])
return {ARGV[1]}
