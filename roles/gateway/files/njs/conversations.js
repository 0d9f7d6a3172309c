// Which conversation a request belongs to: its turns go to one server, whose cache holds what they begin with.
import crypto from 'crypto';

// Of a text this much of its head and of its tail counts, with its length: what is hashed stays small.
const PART = 8192;
// A prompt grows at its end, so that only its head tells where it belongs.
const HEAD = 1024;

function short(text) {
    return text.length <= 2 * PART ? text : text.length + ':' + text.slice(0, PART) + text.slice(-PART);
}

// What stays the same from turn to turn: all messages up to the first of the user, or the head of a prompt.
function opening(body) {
    if (Array.isArray(body.messages)) {
        const first = body.messages.findIndex((message) => message.role === 'user');
        return body.messages.slice(0, first < 0 ? 1 : first + 1)
            .map((message) => short(JSON.stringify([message.role, message.content]))).join('\n');
    }
    const prompt = body.prompt === undefined ? body.input : body.prompt;
    if (prompt === undefined) {
        return '';
    }
    return (typeof prompt === 'string' ? prompt : JSON.stringify(prompt)).slice(0, HEAD);
}

// A digest of a conversation's opening, and '' where there is none.
function digest(body) {
    const text = opening(body);
    return text === '' ? '' : crypto.createHash('sha256').update(text).digest('hex');
}

// Before a request goes on to its model: what was read of it once need not be read again.
function note(r, body) {
    try {
        r.variables.gateway_opening = digest(body) || '-';
    } catch (error) {
        r.variables.gateway_opening = '-';
    }
}

// js_set $gateway_conversation: what servers are chosen by. A request without a beginning is a conversation of its own.
function key(r) {
    const v = r.variables;
    if (v.gateway_opening === '') {
        try {
            note(r, JSON.parse(r.requestText));
        } catch (error) {
            v.gateway_opening = '-';
        }
    }
    const opened = v.gateway_opening === '-' ? v.request_id : v.gateway_opening;
    return [v.gateway_model, v.gateway_client, opened].join(':');
}

export default {key, note};
