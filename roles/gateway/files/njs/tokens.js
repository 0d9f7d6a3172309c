// Who asks with a token (JWT) that another has signed, and what it may. The issuers, their public keys and the rules
// were judged before they came here; of a token nothing is believed until its signature is checked with one of those
// keys, and no key or address that a token brings along is ever used.
import digests from 'crypto';
import files from 'fs';

const LONGEST = 8192;
const ALGORITHMS = {
    RS256: {key: {name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256'}, check: {name: 'RSASSA-PKCS1-v1_5'}},
    ES256: {key: {name: 'ECDSA', namedCurve: 'P-256'}, check: {name: 'ECDSA', hash: 'SHA-256'}},
};
const TYPES = ['jwt', 'at+jwt', 'application/at+jwt'];
// What a name in the log may hold; a subject with anything else is told by its digest as well.
const UNCLEAN = /[^A-Za-z0-9._@|:-]/g;
// Seconds that a token is known for when the keys of its issuer may change meanwhile.
const KNOWN_FOR = 30;
const LONGEST_SUBJECT = 128;

function has(object, name) {
    return Object.prototype.hasOwnProperty.call(object, name);
}

// The bytes of a part of a token, or null. There is one way to write them: others would be other tokens to a cache.
function bytes(part) {
    const found = Buffer.from(part, 'base64url');
    return found.toString('base64url') === part ? found : null;
}

// Whether an object in this JSON has a name twice: readers differ in which one they take.
function repeated(text) {
    const open = [];
    for (let at = 0; at < text.length; at++) {
        const character = text[at];
        if (character === '{' || character === '[') {
            open.push([]);
        } else if (character === '}' || character === ']') {
            open.pop();
        } else if (character === '"') {
            const begin = at++;
            while (text[at] !== '"') {
                at += text[at] === '\\' ? 2 : 1;
            }
            if (text.slice(at + 1).trimStart()[0] === ':') {
                const name = JSON.parse(text.slice(begin, at + 1)), names = open[open.length - 1];
                if (names.indexOf(name) >= 0) {
                    return true;
                }
                names.push(name);
            }
        }
    }
    return false;
}

// The object that a part of a token is, or null.
function object(part) {
    const data = bytes(part);
    if (data === null) {
        return null;
    }
    try {
        const text = new TextDecoder('utf-8', {fatal: true}).decode(data);
        const found = JSON.parse(text);
        return found === null || typeof found !== 'object' || repeated(text) ? null : found;
    } catch (error) {
        return null;
    }
}

function sensible(header) {
    const type = header.typ === undefined ? 'jwt' : header.typ;
    return typeof header.alg === 'string' && typeof header.kid === 'string' && !has(header, 'crit')
        && !has(header, 'b64') && typeof type === 'string' && TYPES.indexOf(type.toLowerCase()) >= 0;
}

// A time of the claims that must be a number where it is given.
function time(value) {
    return value === undefined || typeof value === 'number' && isFinite(value);
}

function meant(claims, issuer, now) {
    const audience = Array.isArray(claims.aud) ? claims.aud : [claims.aud];
    const latest = now + issuer.leeway;
    return audience.indexOf(issuer.audience) >= 0 && claims.exp !== undefined && time(claims.exp)
        && time(claims.nbf) && time(claims.iat) && !(claims.nbf > latest) && !(claims.iat > latest);
}

// The claim at a path of names, or undefined.
function claimed(claims, path) {
    return path.reduce((value, name) => {
        return value !== null && typeof value === 'object' && has(value, name) ? value[name] : undefined;
    }, claims);
}

function fits(rule, claims) {
    if (rule.claim === undefined) {
        return true;
    }
    const found = claimed(claims, rule.claim);
    return (Array.isArray(found) ? found : [found]).some((value) => rule.values.indexOf(value) >= 0);
}

// The name in the log and of the quotas: never that of two subjects, and never that of an API key.
function client(issuer, subject) {
    const clean = subject.replace(UNCLEAN, '_');
    if (clean === subject && subject.length <= LONGEST_SUBJECT) {
        return issuer.name + ':' + subject;
    }
    const digest = digests.createHash('sha256').update(subject).digest('hex');
    return issuer.name + ':' + clean.slice(0, LONGEST_SUBJECT / 2) + '~' + digest.slice(0, 16);
}

// What Nginx holds ready is text within an object (its lists are none that programs could search): {version, text}.
function held(object) {
    return JSON.parse(object.text);
}

// Keys that are fetched change without Nginx: they are read when a signature is to be checked.
function keysOf(issuer) {
    if (issuer.fetched === '') {
        return issuer.keys;
    }
    const found = JSON.parse(files.readFileSync(issuer.fetched, 'utf8')).find((other) => other.name === issuer.name);
    return found === undefined ? [] : found.keys;
}

async function signed(key, signature, text) {
    const algorithm = ALGORITHMS[key.alg];
    const imported = await crypto.subtle.importKey('jwk', key.jwk, algorithm.key, false, ['verify']);
    return crypto.subtle.verify(algorithm.check, imported, signature, Buffer.from(text));
}

// What a token says, as the record that a key would have, or null.
async function read(secret) {
    const parts = secret.split('.');
    const header = object(parts[0]), claims = object(parts[1]), signature = bytes(parts[2]);
    if (header === null || claims === null || signature === null || !sensible(header)) {
        return null;
    }
    const issuer = held(globalThis.gateway_issuers).find((other) => other.issuer === claims.iss);
    const key = issuer === undefined ? undefined : keysOf(issuer).find((other) => other.kid === header.kid);
    // The algorithm is the key's: what the token says must be the same, and decides nothing.
    if (key === undefined || key.alg !== header.alg || issuer.algorithms.indexOf(key.alg) < 0
        || signature.length !== key.size) {
        return null;
    }
    if (await signed(key, signature, parts[0] + '.' + parts[1]) !== true) {
        return null;
    }
    const subject = claimed(claims, issuer.subject);
    if (typeof subject !== 'string' || subject === '' || !meant(claims, issuer, Date.now() / 1000)) {
        return null;
    }
    const rule = issuer.rules.find((other) => fits(other, claims));
    const rights = rule === undefined ? {unruled: true} : rule.rights;
    const record = Object.assign({}, rights, {name: client(issuer, subject), expires: claims.exp + issuer.leeway});
    return issuer.fetched === '' ? record : Object.assign(record, {until: Date.now() / 1000 + KNOWN_FOR});
}

// The record of a token, null where it is none, or the promise of one of these where its signature must be checked.
// One that was good is known by its digest until it ends, or until issuers or keys change; not for long if keys are
// fetched.
function record(r, secret, digest) {
    const zone = ngx.shared.gateway_tokens;
    if (zone === undefined || secret.split('.', 4).length !== 3 || r.headersIn['Authorization'] === undefined) {
        return null;
    }
    r.variables.gateway_reason = 'token';
    if (secret.length > LONGEST) {
        return null;
    }
    if (r.variables.gateway_token !== '') {
        return JSON.parse(r.variables.gateway_token);
    }
    const name = globalThis.gateway_issuers.version + digest, text = zone.get(name);
    const known = text ? JSON.parse(text) : null;
    if (known !== null && (known.until === undefined || Date.now() < known.until * 1000)) {
        r.variables.gateway_token = text;
        return known;
    }
    return read(secret).then((found) => {
        if (found !== null) {
            const text = JSON.stringify(found);
            zone.set(name, text);
            r.variables.gateway_token = text;
        }
        return found;
    });
}

export default {record};
