// Requests and tokens per minute of each key, counted in memory that all workers share.
// A minute slides: what was used in the minute before counts by the part of it that still lies within 60 s.

const MINUTE = 60;

function zone() {
    return ngx.shared.gateway_quota;
}

// What a key has used of the last 60 s, and in how many seconds one more would fit into the limit.
function used(name, kind, limit, now) {
    const minute = Math.floor(now / MINUTE);
    const part = now / MINUTE - minute;
    const stem = kind + ':' + name + ':';
    const current = zone().get(stem + minute) || 0;
    const before = zone().get(stem + (minute - 1)) || 0;
    const sum = current + before * (1 - part);
    let wait = 0;
    if (sum > limit - 1) {
        const later = current > limit - 1 ? 2 - (limit - 1) / current : 1 - (limit - 1 - current) / before;
        wait = Math.max(1, Math.ceil((later - part) * MINUTE));
    }
    return {sum: sum, wait: wait, slot: stem + minute};
}

// The headers that clients of OpenAI's API read.
function tell(r, kind, limit, left, wait) {
    r.variables['gateway_limit_' + kind] = limit;
    r.variables['gateway_remaining_' + kind] = Math.max(0, Math.floor(left));
    r.variables['gateway_reset_' + kind] = wait + 's';
}

// Count one request; '' if it fits, else which limit is met. $gateway_wait is when to come again, in seconds.
function spend(r, key) {
    const now = Date.now() / 1000;
    let reason = '', wait = 0;
    if (key.tokens !== undefined) {
        const tokens = used(key.name, 't', key.tokens, now);
        tell(r, 'tokens', key.tokens, key.tokens - tokens.sum, tokens.wait || (tokens.sum > 0 ? MINUTE : 0));
        r.variables.gateway_counted = key.name;
        if (tokens.wait > 0) {
            reason = 'tokens';
            wait = tokens.wait;
        }
    }
    if (key.requests !== undefined) {
        const requests = used(key.name, 'r', key.requests, now);
        const fits = requests.wait === 0 && reason === '';
        if (fits) {
            zone().incr(requests.slot, 1, 0);
        }
        const left = key.requests - requests.sum - (fits ? 1 : 0);
        tell(r, 'requests', key.requests, left, requests.wait || MINUTE);
        if (requests.wait > wait) {
            reason = 'requests';
            wait = requests.wait;
        }
    }
    if (reason !== '') {
        r.variables.gateway_wait = wait;
    }
    return reason;
}

// Tokens that a request has cost since it was last counted.
function charge(name, tokens) {
    if (name !== '' && tokens !== 0) {
        const slot = 't:' + name + ':' + Math.floor(Date.now() / 1000 / MINUTE);
        zone().incr(slot, tokens, 0);
    }
}

export default {charge, spend};
