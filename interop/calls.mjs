// What clients of the tests have in common.

import { createHash } from 'node:crypto';

import * as oauth from 'oauth4webapi';

// The libraries send through here: it shows the proof of the last request, and
// lets a thief send an earlier one.
export const wire = {
  proof: undefined,
  stolen: undefined,
  fetch(url, init) {
    if (wire.stolen) init.headers.dpop = wire.stolen;
    wire.proof = init.headers.dpop;
    return fetch(url, init);
  },
};

// logIn is the browser of somebody: it follows an authorization request, with
// cookies, to where the provider sends it back to the client. The provider's
// form, if it has one, gets what they fill in.
export async function logIn(url, callback, fillIn) {
  const cookies = new Map();
  let form; // to be sent
  for (let hops = 0; hops < 10; hops++) {
    if (url.href.startsWith(callback)) return url;
    const cookie = Array.from(cookies, (pair) => pair.join('=')).join('; ');
    const response = await fetch(url, { headers: { cookie }, redirect: 'manual', ...form });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = line.match(/^([^=]+)=([^;]*)/);
      cookies.set(name, value);
    }
    if (response.headers.has('location')) {
      url = new URL(response.headers.get('location'), url);
      form = undefined;
      continue;
    }
    const page = await response.text();
    const action = fillIn && !form && page.match(/<form[^>]* action="([^"]+)"/);
    if (!action) throw new Error(`${url} answered ${response.status}: ${page}`);
    url = new URL(action[1].replaceAll('&amp;', '&'), url);
    form = { method: 'POST', body: new URLSearchParams(fillIn) };
  }
  throw new Error(`the provider does not come to an end: ${url}`);
}

// outcome tells what became of a call. The libraries throw a challenge, parsed.
async function outcome(call) {
  try {
    const response = await call;
    return { status: response.status, answer: await response.text() };
  } catch (err) {
    if (err.code !== oauth.WWW_AUTHENTICATE_CHALLENGE) throw err;
    const challenges = err.cause.map(({ scheme, parameters: { error } }) => (error ? `${scheme} ${error}` : scheme));
    return { status: err.status, challenges };
  }
}

export const decodeHeader = (jws) => JSON.parse(Buffer.from(jws.split('.')[0], 'base64url'));

// report makes a call, which sends the case's name along, and prints what became
// of it and what was sent.
export async function report(id, token, call) {
  wire.proof = undefined;
  const result = await outcome(call(new Headers({ 'X-Case': id })));
  console.log(JSON.stringify({
    case: id,
    token: createHash('sha256').update(token).digest('hex'),
    token_alg: token.includes('.') ? decodeHeader(token).alg : 'opaque',
    proof_alg: wire.proof && decodeHeader(wire.proof).alg,
    ...result,
  }));
}
