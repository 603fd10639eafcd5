-- Returns a page of a log.
-- KEYS: meta, stream
-- ARGV: tag, epoch, first and last offset, most bytes, bytes that each message has more for viewers
-- Returns tag, epoch ('' if there is no log), earliest, the messages, oldest first: at least one
local tag, room = ARGV[1], tonumber(ARGV[5])
local found = redis.call('HMGET', KEYS[1], 'epoch', 'earliest')
if found[1] ~= ARGV[2] then return {tag, found[1] or '', 0, {}} end
local messages, count, start = {}, 8, ARGV[3]
while room > 0 do
    local entries = redis.call('XRANGE', KEYS[2], start, ARGV[4], 'COUNT', count)
    for _, entry in ipairs(entries) do
        room = room - #entry[2][2] - tonumber(ARGV[6])
        if room < 0 and #messages > 0 then break end
        messages[#messages + 1] = entry[2][2]
    end
    if #entries < count then break end
    start = '(' .. entries[#entries][1]
    count = math.min(count * 2, 256)
end
return {tag, found[1], tonumber(found[2] or 1), messages}
