// Who asks, and may they? One call per request, before anything is read of its body.
// Written for njs 0.8 and later; no state outlives a request but the shared zones.
import crypto from 'crypto';
import quota from 'quota.js';
import tokens from 'tokens.js';

// The secret a client presents, or ''. Two different ones are a question with two answers: none counts.
function presented(r) {
    const header = r.headersIn['Authorization'];
    const other = r.headersIn['X-API-Key'];
    if (header === undefined) {
        return other === undefined ? '' : other;
    }
    const secret = header.slice(0, 7) === 'Bearer ' ? header.slice(7) : '';
    return other === undefined || other === secret ? secret : '';
}

// The time this takes tells nothing of where two texts of one length differ.
function same(one, other) {
    let difference = one.length ^ other.length;
    for (let i = 0; i < one.length; i++) {
        difference |= one.charCodeAt(i) ^ other.charCodeAt(i);
    }
    return difference === 0;
}

// The record of the key that is presented, or null. Keys are found by the head of their digest: what lies in
// Nginx's table is no secret that a client could guess letter by letter. What is no key may be a token, whose record
// may be promised only.
function record(r) {
    const secret = presented(r);
    if (secret === '') {
        return null;
    }
    const digest = crypto.createHash('sha256').update(secret).digest('hex');
    r.variables.gateway_key_id = digest.slice(0, 16);
    const found = r.variables.gateway_key_record;
    if (!found) {
        return tokens.record(r, secret, digest);
    }
    const key = JSON.parse(found);
    return same(key.digest, digest) ? key : null;
}

// Whether an address (4 or 16 bytes) lies in one of [base in hex, length in bits].
function within(address, networks) {
    const hex = address.toString('hex');
    return networks.some((network) => {
        const base = network[0], bits = network[1];
        if (base.length !== hex.length) {
            return false;
        }
        const whole = bits >> 2, rest = bits & 3;
        if (hex.slice(0, whole) !== base.slice(0, whole)) {
            return false;
        }
        const shift = 4 - rest;
        return rest === 0 || parseInt(hex[whole], 16) >> shift === parseInt(base[whole], 16) >> shift;
    });
}

// A record that is valid now, or null; then $gateway_reason is set if there is more to say than that it is none.
function current(r, key) {
    if (key === null) {
        return null;
    }
    if (key.expires !== undefined && Date.now() >= key.expires * 1000) {
        r.variables.gateway_reason = key.digest === undefined ? 'expired_token' : 'expired';
        return null;
    }
    if (key.digest === undefined) {
        r.variables.gateway_reason = '';
    }
    r.variables.gateway_client = key.name;
    return key;
}

function promised(key) {
    return key !== null && key.then !== undefined;
}

// The valid record of who was let in before, in the same request.
function valid(r) {
    const key = record(r);
    return promised(key) ? null : current(r, key);
}

// What `judge` says of who asks: at once, or when the signature of a token is checked (Nginx takes what is set then).
function judged(r, judge) {
    const key = record(r);
    if (promised(key)) {
        return key.then((checked) => r.setReturnValue(judge(r, current(r, checked))));
    }
    return judge(r, current(r, key));
}

// js_set $gateway_known: 'pass' for any valid key or token. It alone decides nothing but whether a body is read.
function known(r) {
    return judged(r, (r, key) => key === null ? '401' : 'pass');
}

function refused(r, status, reason) {
    r.variables.gateway_reason = reason;
    return status;
}

function judge(r, key) {
    if (key === null) {
        return '401';
    }
    if (key.unruled) {
        return refused(r, '403', 'rule');
    }
    if (key.addresses !== undefined && !within(r.rawVariables.binary_remote_addr, key.addresses)) {
        return refused(r, '403', 'address');
    }
    const model = r.variables.gateway_model;
    if (model !== '' && key.models !== undefined && key.models.indexOf(model) < 0) {
        return refused(r, '403', 'model');
    }
    if (key.routes !== undefined && key.routes.indexOf(r.variables.gateway_route) < 0) {
        return refused(r, '403', 'route');
    }
    if (key.concurrent !== undefined) {
        r.variables.gateway_concurrency = key.concurrent;
    }
    const reason = quota.spend(r, key);
    return reason === '' ? 'pass' : refused(r, '429', reason);
}

// js_set $gateway_verdict: 'pass', or the status of the refusal. Nginx takes a failed call for '', which is no pass.
// Also sets $gateway_client (the key's name, or the token's issuer and subject) and $gateway_reason.
function verdict(r) {
    return judged(r, judge);
}

export default {known, valid, verdict};
