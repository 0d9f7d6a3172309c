// What an answer has cost: read from the bytes as they pass, which go on at once and unchanged.
import quota from 'quota.js';
import streams from 'streams.js';

const MARK = '"usage":';
// Longest piece of an earlier buffer that may hold the head of a usage object.
const TAIL = 512;
const KEPT = {prompt: /"(?:prompt|input)_tokens":\s*(\d+)/, completion: /"(?:completion|output)_tokens":\s*(\d+)/};

// The last usage object in a text: {prompt, completion}, or null. Inside a JSON string its quotes would be
// escaped, so no text that a model writes can pass for it.
function read(text) {
    let at = text.lastIndexOf(MARK);
    while (at >= 0) {
        const rest = text.slice(at + MARK.length).trimStart();
        if (rest[0] === '{') {
            const prompt = rest.match(KEPT.prompt), completion = rest.match(KEPT.completion);
            if (prompt !== null) {
                return {prompt: Number(prompt[1]), completion: completion === null ? 0 : Number(completion[1])};
            }
        }
        at = at === 0 ? -1 : text.lastIndexOf(MARK, at - 1);
    }
    return null;
}

// How often a piece of a stream begins an event: about one token each.
function events(data) {
    let count = 0, at = data.indexOf('data: ');
    while (at >= 0) {
        count++;
        at = data.indexOf('data: ', at + 6);
    }
    return count;
}

// Until the engine has reported, each event counts as a token: a client that hangs up before the end has used
// what it was sent.
function note(r, data) {
    const v = r.variables;
    if (v.gateway_first_byte === '') {
        v.gateway_first_byte = v.request_time;
    }
    // A character cut in two by the end of a buffer reads wrong here; digits and quotes do not.
    const piece = v.gateway_tail + data.toString();
    const usage = read(piece);
    v.gateway_tail = piece.slice(-TAIL);
    const before = Number(v.gateway_prompt_tokens) + Number(v.gateway_completion_tokens);
    if (usage !== null) {
        v.gateway_prompt_tokens = usage.prompt;
        v.gateway_completion_tokens = usage.completion;
        v.gateway_usage = 'engine';
    } else if (v.gateway_usage !== 'engine') {
        v.gateway_completion_tokens = Number(v.gateway_completion_tokens) + events(data);
    }
    quota.charge(v.gateway_counted, Number(v.gateway_prompt_tokens) + Number(v.gateway_completion_tokens) - before);
}

// js_body_filter with buffers: the bytes go on first, and whatever goes wrong in counting cuts no stream.
function count(r, data, flags) {
    streams.pass(r, data, flags);
    if (data.length > 0) {
        try {
            note(r, data);
        } catch (error) {
            r.variables.gateway_usage = 'failed';
            r.error('usage not counted: ' + error.message);
        }
    }
}

// js_set $gateway_given: the path for the log. A client may have written bytes that are no text, which would spoil the
// line for every reader of JSON; and what is refused before it has a path is shown by where the words for it lie.
function path(r) {
    const bytes = r.rawVariables.uri;
    const text = bytes === undefined ? '' : bytes.toString('utf8');
    return text.slice(0, 9) === '/-/error/' ? '' : text;
}

export default {count, path};
