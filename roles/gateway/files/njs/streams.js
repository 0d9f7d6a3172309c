// How answers go to the client: whole events, and a word in place of the end where the engine has none.

const DATA = 'data: ';
const USAGE = '"usage":';
// Longest event that is held back until it is whole; a longer one goes on in pieces, and so does all after it.
const LONGEST = 65536;
const CUT = DATA + JSON.stringify({
    error: {
        message: 'The model\'s engine was lost: this answer is not complete. Ask again.',
        type: 'server_error',
        param: null,
        code: 'engine_lost',
    },
}) + '\n\n';

// Whether the client wants the event that engines here end every stream with, the one with usage and no choices.
function wanted(r) {
    try {
        return JSON.parse(r.requestText).stream_options.include_usage === true;
    } catch (error) {
        return false;
    }
}

// An event of usage that nobody asked for: clients that read choices[0] of every event would stumble over it.
function unasked(text) {
    if (text.indexOf(USAGE) < 0 || text.slice(0, DATA.length) !== DATA) {
        return false;
    }
    try {
        const event = JSON.parse(text.slice(DATA.length));
        return Array.isArray(event.choices) && event.choices.length === 0 && Boolean(event.usage);
    } catch (error) {
        return false;
    }
}

// thin: events, without the one that nobody asked for. full: all events. no: bytes as they come; a length that the
// client was told allows nothing else.
function kind(r) {
    const head = r.headersOut;
    if ((head['Content-Type'] || '').slice(0, 17) !== 'text/event-stream' || head['Content-Length'] !== undefined) {
        return 'no';
    }
    return wanted(r) ? 'full' : 'thin';
}

// Whole events go on; the head of one that is still coming waits for its end.
function events(r, data, flags) {
    const v = r.variables;
    const joined = v.gateway_held === '' ? data : Buffer.concat([Buffer.from(v.gateway_held, 'hex'), data]);
    const gap = joined.indexOf('\r\n\r\n') < 0 ? '\n\n' : '\r\n\r\n';
    const thin = v.gateway_stream === 'thin';
    let from = 0, sent = 0;
    for (let end = joined.indexOf(gap); end >= 0; end = joined.indexOf(gap, from)) {
        const next = end + gap.length;
        if (thin && unasked(joined.slice(from, end).toString())) {
            r.sendBuffer(joined.slice(sent, from), {last: false});
            sent = next;
        }
        from = next;
    }
    if (joined.length - from > LONGEST) {
        v.gateway_stream = 'open';
        from = joined.length;
    }
    const rest = flags.last ? joined.length : from;
    v.gateway_held = joined.slice(rest).toString('hex');
    r.sendBuffer(joined.slice(sent, rest), flags);
}

// Nginx calls once more, with nothing and no end, when it has given the engine up (and also before the first byte, when
// it has not). Then, of the times that it notes for each engine, the last one stands fast.
function lost(r, data, flags) {
    return data.length === 0 && !flags.last && (r.variables.upstream_response_time || '-').slice(-1) !== '-';
}

// A stream ends with an error that clients of OpenAI's API raise, and with nothing that could pass for its own end. Half
// an event that was held back is dropped. Any other answer is left as it is: cut, which HTTP tells the client.
function end(r, flags) {
    const v = r.variables;
    v.gateway_ended = 'cut';
    if (v.gateway_stream === 'no') {
        return r.sendBuffer('', flags);
    }
    v.gateway_held = '';
    return r.sendBuffer((v.gateway_stream === 'open' ? '\n\n' : '') + CUT, {last: true});
}

// What js_body_filter is called with goes on. $gateway_ended: whole; cut, by the engine; left, by the client.
function pass(r, data, flags) {
    const v = r.variables;
    if (v.gateway_stream === '') {
        v.gateway_stream = kind(r);
        v.gateway_ended = 'left';
    }
    if (lost(r, data, flags)) {
        return end(r, flags);
    }
    if (flags.last) {
        v.gateway_ended = 'whole';
    }
    if (v.gateway_stream === 'thin' || v.gateway_stream === 'full') {
        return events(r, data, flags);
    }
    return r.sendBuffer(data, flags);
}

export default {pass};
