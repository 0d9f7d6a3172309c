// The visitor's language, host name, and what a key may. Nothing is stored, nothing is asked of another host.
'use strict';

const page = document.documentElement;
const $ = (id) => document.getElementById(id);
const said = (element, name) => element.dataset[page.lang + name];

function speak(language) {
    page.lang = language;
    page.dataset.language = language;
    const button = $('language'), other = language === 'en' ? 'zh' : 'en';
    button.lang = other;
    button.textContent = button.dataset[other];
    const status = $('status');
    status.textContent = status.dataset.ok === '' ? '' : said(status, status.dataset.ok === 'yes' ? 'Ok' : 'Bad');
    $('may').textContent = '';
}

async function look() {
    let ok = false;
    try {
        ok = (await fetch('/healthz')).ok;
    } catch (error) {
        // No answer: that is what is shown.
    }
    $('status').dataset.ok = ok ? 'yes' : 'no';
    speak(page.lang);
}

function limit(box, answer, kind, name) {
    const most = answer.headers.get('X-RateLimit-Limit-' + kind);
    const left = answer.headers.get('X-RateLimit-Remaining-' + kind);
    return [said(box, name), most === null ? said(box, 'Unlimited') : [left, said(box, 'Of'), most].join(' ')];
}

async function ask(event) {
    event.preventDefault();
    const box = $('may');
    try {
        const answer = await fetch('/v1/models', { headers: { Authorization: 'Bearer ' + $('secret').value } });
        const body = await answer.json();
        box.dataset.ok = answer.ok ? 'yes' : 'no';
        if (!answer.ok) {
            box.textContent = answer.status + ': ' + body.error.message;
            return;
        }
        const rows = [
            [said(box, 'Models'), body.data.map((model) => model.id).join(', ')],
            limit(box, answer, 'Requests', 'Requests'),
            limit(box, answer, 'Tokens', 'Tokens'),
        ];
        box.replaceChildren(...rows.map((row) => {
            const line = document.createElement('p');
            line.textContent = row.join(': ');
            return line;
        }));
    } catch (error) {
        box.dataset.ok = 'no';
        box.textContent = String(error.message);
    }
}

for (const place of document.querySelectorAll('[data-origin]')) {
    place.textContent = location.origin;
}
$('language').hidden = false;
$('language').addEventListener('click', () => speak(page.lang === 'en' ? 'zh' : 'en'));
$('ask').addEventListener('submit', ask);
speak((navigator.language || '').toLowerCase().startsWith('zh') ? 'zh' : 'en');
look();
