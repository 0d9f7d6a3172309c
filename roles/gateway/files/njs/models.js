// Which model a request is for, and which there are: where several stand behind one address.
import conversations from 'conversations.js';
import keys from 'keys.js';

function refuse(r, status, reason) {
    r.variables.gateway_reason = reason;
    r.return(status);
}

// js_content of a plain path: on to the model that the body names. The key is judged there, for that model.
function choose(r) {
    let body, wanted;
    try {
        body = JSON.parse(r.requestText || '{}');
        wanted = body.model;
    } catch (error) {
        return refuse(r, 400, 'body');
    }
    r.variables.gateway_asked = r.uri;
    r.variables.gateway_wanted = (wanted === undefined ? '' : wanted) + ':' + r.uri;
    const target = r.variables.gateway_target;
    if (target) {
        if (r.variables.gateway_conversing) {
            conversations.note(r, body);
        }
        return r.internalRedirect(target);
    }
    return refuse(r, 404, 'model');
}

// js_content of /v1/models: the models that the key may use.
function list(r) {
    const key = keys.valid(r);
    const all = JSON.parse(r.variables.gateway_model_list);
    const mine = all.filter((model) => key.models === undefined || key.models.indexOf(model.id) >= 0);
    r.headersOut['Content-Type'] = 'application/json';
    return r.return(200, JSON.stringify({object: 'list', data: mine}));
}

export default {choose, list};
