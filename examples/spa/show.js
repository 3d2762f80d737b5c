// Shows requests and their answers, with the proofs taken apart.

const timeOf = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

const ofProof = {
  typ: 'This JWT is a DPoP proof, and nothing else.',
  alg: 'How it is signed.',
  jwk: 'The public key. The token is bound to its thumbprint.',
  jti: 'Random. The server remembers it, so that each proof works once.',
  htm: 'The method of this request: the proof is good for no other.',
  htu: 'The URL of this request, without its query.',
  iat: (value) => `When it was made: ${timeOf(value)}.`,
  nonce: 'The last DPoP-Nonce of this server: the proof was not made ahead of time.',
  ath: 'The SHA-256 of the token: the proof goes with no other.',
};

const ofToken = {
  sub: 'The user.',
  aud: 'The API that the token is for.',
  exp: (value) => `Good until ${timeOf(value)}.`,
  cnf: 'The thumbprint of the key that the token is bound to.',
};

const list = document.querySelector('#requests');

const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const shorten = (text) => (text.length > 60 ? `${text.slice(0, 24)}…${text.slice(-8)} (${text.length} characters)` : text);

// rows makes a list of an object's members, with an explanation where there is one.
function rows(members, explanations = {}) {
  return make('dl', {}, ...Object.entries(members).flatMap(([name, value]) => {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    const explanation = explanations[name];
    const sentence = typeof explanation === 'function' ? explanation(value) : explanation;
    return [make('dt', {}, name), make('dd', {}, text, ...(sentence ? [make('small', {}, sentence)] : []))];
  }));
}

const section = (className, title, ...children) => make('section', {}, make('h3', { className }, title), ...children);

const decode = (part) => JSON.parse(new TextDecoder().decode(
  Uint8Array.from(atob(part.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0)),
));

function proofSections(proof) {
  const parts = proof.split('.');
  const [head, claims, signature] = parts.map((text, i) => make('span', { className: ['head', 'claims', 'signature'][i] }, text));
  return [
    section('', 'DPoP: the proof, as it is sent', make('p', { className: 'jws' }, head, '.', claims, '.', signature)),
    section('head', 'Its header', rows(decode(parts[0]), ofProof)),
    section('claims', 'Its claims', rows(decode(parts[1]), ofProof)),
  ];
}

// A token is not shown in full: it could be copied from a picture of this page.
function bodyRows(text) {
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    // It is not JSON.
  }
  if (body === null || typeof body !== 'object') return text ? { Body: text } : {};
  return Object.fromEntries(Object.entries(body).map(([name, value]) => [name, typeof value === 'string' ? shorten(value) : value]));
}

// describe says what a challenge, or an error of the authorization server, says.
export function describe(challenge, body) {
  const description = /error_description="([^"]*)"/.exec(challenge)?.[1];
  if (description) return description;
  try {
    return JSON.parse(body).error_description ?? '';
  } catch {
    return '';
  }
}

// show adds a request to the list, and returns what adds its answer.
export function show(url, { method = 'GET', headers = {}, body }) {
  const sent = new Headers(headers);
  const status = make('span', { className: 'status' }, '…');
  const meaning = make('span', { className: 'meaning' });
  const { host, pathname } = new URL(url);
  const request = { URL: String(url) };
  if (sent.has('authorization')) request.Authorization = shorten(sent.get('authorization'));
  for (const [name, value] of new URLSearchParams(body ?? '')) request[name] = shorten(value);
  const details = make(
    'details',
    {},
    make('summary', {}, status, make('strong', {}, method), ` ${host}${pathname}`, meaning),
    section('', 'Request', rows(request)),
    ...(sent.has('dpop') ? proofSections(sent.get('dpop')) : []),
  );
  for (const other of list.querySelectorAll('details')) other.open = false;
  details.open = true;
  list.prepend(make('li', {}, details));

  return {
    async answered(response) {
      const text = await response.text();
      const challenge = response.headers.get('www-authenticate') ?? '';
      status.textContent = response.status;
      status.classList.add(response.ok ? 'good' : 'bad');
      meaning.textContent = describe(challenge, text);
      const answer = { Status: `${response.status} ${response.statusText}` };
      for (const name of ['WWW-Authenticate', 'DPoP-Nonce']) {
        if (response.headers.has(name)) answer[name] = response.headers.get(name);
      }
      details.append(section('', 'Answer', rows({ ...answer, ...bodyRows(text) })));
      const claims = /"access_token":"[^".]+\.([^".]+)\.[^".]+"/.exec(text)?.[1];
      if (claims) details.append(section('', 'The token’s claims', rows(decode(claims), ofToken)));
    },
    failed(err) {
      status.textContent = 'failed';
      status.classList.add('bad');
      meaning.textContent = `The browser gives this page no answer: ${err.message}.`;
    },
  };
}
