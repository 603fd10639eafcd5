-- Gives one message its place, keeps it, and tells the nodes.
-- KEYS: meta, stream, ids, order (of the ids), index (of all channels)
-- ARGV: tag, epoch for a new log, key of the id ('' without), the message as JSON members, what
--   the end says ('' if it is none), window of ids (µs), most ids, most messages, most bytes,
--   seconds to keep, name of the channel, command that tells, where, and where those listen who
--   hear many channels ('' without)
-- Returns tag, outcome (0 kept, 1 known already, 2 ended), epoch, offset, time (µs), earliest
local meta, stream, ids, order = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local tag, key, last = ARGV[1], ARGV[3], ARGV[5]
local window, keep = tonumber(ARGV[6]), tonumber(ARGV[10])
local function text(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local found = redis.call('HMGET', meta,
    'epoch', 'head', 'ended', 'bytes', 'earliest', 'oldest', 'latest')
local epoch = found[1]
if not epoch then
    epoch, found = ARGV[2], {}
    redis.call('HSET', meta, 'epoch', epoch, 'opened', text(now)) -- first: this one can be refused
    redis.call('DEL', stream, ids, order)
end
local head, bytes = tonumber(found[2] or 0), tonumber(found[4] or 0)
local earliest, oldest = tonumber(found[5] or 1), tonumber(found[6] or 0)
now = math.max(now, tonumber(found[7] or 0)) -- a clock that was set back

if key ~= '' then
    local known = redis.call('HGET', ids, key)
    if known then
        local offset, at = string.match(known, '(%d+):(%d+)')
        if tonumber(at) >= now - window then
            return {tag, 1, epoch, tonumber(offset), tonumber(at), earliest}
        end
    end
end
if found[3] then return {tag, 2, epoch, head, now, earliest} end

head = head + 1
local message = '{"offset":' .. text(head) .. ',"at":' .. text(now) .. ',' .. ARGV[4] .. '}'
local id = text(head) .. '-0'
local added = redis.pcall('XADD', stream, id, 'm', message)
if type(added) == 'table' and string.find(added.err, 'equal or smaller', 1, true) then
    -- Others have put there what is past the head: it is no message, and it would stay for good.
    -- The last id of a stream cannot be set back when something was deleted: so it is made anew.
    local before = redis.call('XRANGE', stream, '-', text(head - 1) .. '-0')
    redis.call('DEL', stream)
    for _, entry in ipairs(before) do redis.call('XADD', stream, entry[1], 'm', entry[2][2]) end
    redis.call('XADD', stream, id, 'm', message)
elseif type(added) == 'table' and added.err then
    return added
end
bytes = bytes + #message + 64
if earliest == head then oldest = now end

-- Give up the oldest: a sixteenth at a time, so that it costs few messages anything.
local most_messages, most_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local function is_over(share)
    local count = head - earliest + 1
    return most_messages > 0 and count > most_messages * share
        or count > 1 and most_bytes > 0 and bytes > most_bytes * share
        or count > 1 and keep > 0 and oldest < now - keep * 1000000
end
if is_over(1 + 1 / 16) then
    for _ = 1, 16 do
        local entries = redis.call('XRANGE', stream, '-', '+', 'COUNT', 16)
        for number, entry in ipairs(entries) do
            oldest = tonumber(string.match(entry[2][2], '"at":(%d+)'))
            if not is_over(1) or number == #entries then break end
            bytes = bytes - #entry[2][2] - 64
            earliest = tonumber(string.match(entry[1], '%d+')) + 1
        end
        redis.call('XTRIM', stream, 'MINID', text(earliest) .. '-0')
        if #entries < 16 or not is_over(1) then break end
    end
end

redis.call('HSET', meta, 'head', text(head), 'bytes', text(bytes), 'earliest', text(earliest),
    'oldest', text(oldest), 'latest', text(now))
if last ~= '' then redis.call('HSET', meta, 'ended', last) end
if head % 64 == 1 then redis.call('ZADD', KEYS[5], 0, ARGV[11]) end -- now and then: it may be lost
if keep > 0 then
    redis.call('PEXPIRE', meta, keep * 1000)
    redis.call('PEXPIRE', stream, keep * 1000)
else
    redis.call('PERSIST', meta) -- one that was only asked for expires
end

if key ~= '' and window > 0 then
    redis.call('HSET', ids, key, text(head) .. ':' .. text(now))
    redis.call('RPUSH', order, key)
    local count = redis.call('LLEN', order)
    for _ = 1, 16 do
        local first = redis.call('LINDEX', order, 0)
        local value = redis.call('HGET', ids, first)
        local at = value and tonumber(string.match(value, ':(%d+)')) or 0
        if count <= tonumber(ARGV[7]) and at >= now - window then break end
        redis.call('LPOP', order)
        redis.call('HDEL', ids, first)
        count = count - 1
    end
    redis.call('PEXPIRE', ids, math.ceil(window / 1000))
    redis.call('PEXPIRE', order, math.ceil(window / 1000))
end

local news = '{"epoch":"' .. epoch .. '","earliest":' .. text(earliest) .. ',"message":' .. message .. '}'
redis.call(ARGV[12], ARGV[13], news)
if ARGV[14] ~= '' and redis.call('PUBSUB', 'SHARDNUMSUB', ARGV[14])[2] > 0 then
    redis.call(ARGV[12], ARGV[14], ARGV[11] .. '\n' .. news)
end
return {tag, 0, epoch, head, now, earliest}
