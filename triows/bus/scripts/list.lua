-- Tells how channels stand, by name, and forgets the names of those that are kept no more.
-- KEYS: index
-- ARGV: tag, what stands before and after a name in the key of its state, lowest and highest name
--   (as ZRANGEBYLEX wants them), how many
-- Returns tag, the last name looked at ('' if there are no more), and for each channel: name, epoch,
--   head, earliest, what the end said (or ''), bytes, opened, latest (µs)
local names = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[4], ARGV[5], 'LIMIT', 0, ARGV[6])
local found = {}
for _, name in ipairs(names) do
    local state = redis.call('HMGET', ARGV[2] .. name .. ARGV[3],
        'epoch', 'head', 'earliest', 'ended', 'bytes', 'opened', 'latest')
    if state[1] then
        found[#found + 1] = {name, state[1], tonumber(state[2] or 0), tonumber(state[3] or 1),
            state[4] or '', tonumber(state[5] or 0), tonumber(state[6] or 0),
            tonumber(state[7] or 0)}
    else
        redis.call('ZREM', KEYS[1], name)
    end
end
return {ARGV[1], #names == tonumber(ARGV[6]) and names[#names] or '', found}
