// Signs in by authorization code and PKCE, and calls an API with a token that is
// bound to a key of this browser.

import * as oauth from './node_modules/oauth4webapi/build/index.js';

import { generateKey, loadKey, makeKey } from './key.js';
import { describe, show } from './show.js';

const issuer = new URL('http://localhost:3000');
const resource = 'http://localhost:9000';
const api = new URL('/orders', resource);
const client = { client_id: 'spa' };
const redirectUri = `${location.origin}/`;
const options = {
  [oauth.allowInsecureRequests]: true, // only because the issuer is on this machine
  [oauth.customFetch]: send,
};

let keys; // of this page
let DPoP; // makes proofs with them, and knows each server's last nonce
let token; // in memory alone
let last; // what send has sent
let accepted; // the last call that the API accepted

// send is fetch, for all to see.
async function send(url, init) {
  last = { url, method: init.method, headers: init.headers };
  const shown = show(url, init);
  let response;
  try {
    response = await fetch(url, init);
  } catch (err) {
    shown.failed(err);
    const { origin } = new URL(url);
    throw new Error(`${origin} gave no answer that this page may read. Does it run, and does it let pages of ${location.origin} in?`);
  }
  await shown.answered(response.clone());
  return response;
}

// Servers may want a nonce in proofs. The library has then taken it from the
// answer, and a second attempt has it.
async function withNonce(attempt) {
  try {
    return await attempt();
  } catch (err) {
    if (!oauth.isDPoPNonceError(err)) throw err;
    return attempt();
  }
}

async function discover() {
  return oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, options));
}

async function signIn() {
  const server = await discover();
  const verifier = oauth.generateRandomCodeVerifier();
  const state = oauth.generateRandomState();
  sessionStorage.setItem('sign-in', JSON.stringify({ verifier, state }));
  const url = new URL(server.authorization_endpoint);
  url.search = new URLSearchParams({
    client_id: client.client_id,
    response_type: 'code',
    redirect_uri: redirectUri,
    resource,
    scope: 'orders',
    state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    dpop_jkt: await DPoP.calculateThumbprint(), // the code, too, is of use with this key alone
  });
  location.assign(url);
}

// finishSignIn takes up what signIn began, when the authorization server has sent
// the browser back here.
async function finishSignIn(callback) {
  const begun = JSON.parse(sessionStorage.getItem('sign-in'));
  sessionStorage.removeItem('sign-in');
  if (!begun) throw new Error('This sign-in was not begun here. Try again.');
  const server = await discover();
  const parameters = oauth.validateAuthResponse(server, client, callback, begun.state);
  const answer = await withNonce(async () => oauth.processAuthorizationCodeResponse(server, client,
    await oauth.authorizationCodeGrantRequest(server, client, oauth.None(), parameters, redirectUri, begun.verifier, {
      ...options, DPoP, additionalParameters: { resource },
    })));
  token = answer.access_token;
  element('token').textContent = 'There is one, bound to this key. It is in memory alone, and gone when this page is left.';
  say('Signed in.');
}

const request = (handle) => withNonce(() => oauth.protectedResourceRequest(token, 'GET', api, undefined, undefined, { ...options, DPoP: handle }));

async function call() {
  const response = await request(DPoP);
  if (!response.ok) throw new Error(`The API answered ${response.status}.`);
  accepted = last;
  say(await response.text());
}

// What a thief would do.

const replay = () => expectRefusal(send(accepted.url, { method: accepted.method, headers: accepted.headers }));

const useAsBearer = () => expectRefusal(send(api, { method: 'GET', headers: { authorization: `Bearer ${token}` } }));

const useWithOtherKey = async () => expectRefusal(request(oauth.DPoP(client, await generateKey())));

async function expectRefusal(attempt) {
  const response = await attempt.catch((err) => {
    if (err.code !== oauth.WWW_AUTHENTICATE_CHALLENGE) throw err;
    return err.response;
  });
  if (response.status !== 401) throw new Error(`The API answered ${response.status}, and not 401.`);
  say(`Refused, as it should be: ${describe(response.headers.get('www-authenticate'))}.`);
}

async function readKey() {
  try {
    await crypto.subtle.exportKey('jwk', keys.privateKey);
  } catch (err) {
    say(`The browser does not give it away: ${err.name}.`);
    return;
  }
  throw new Error('The browser gave the private key away.');
}

async function renewKey() {
  await use(await makeKey());
  say('Here is a new key. It needs a token of its own.');
}

async function use(pair) {
  keys = pair;
  DPoP = oauth.DPoP(client, keys);
  token = accepted = undefined;
  element('thumbprint').textContent = await DPoP.calculateThumbprint();
  element('extractable').textContent = keys.privateKey.extractable ? 'yes' : 'no';
  element('token').textContent = 'There is none for this key yet.';
}

// The page.

const element = (id) => document.getElementById(id);

function say(text) {
  element('said').textContent = text;
}

function explain(err) {
  const challenge = err.code === oauth.WWW_AUTHENTICATE_CHALLENGE && describe(err.response.headers.get('www-authenticate'));
  return [err.message, err.error, challenge || err.error_description].filter(Boolean).join(': ');
}

// run does what a button is for, and shows what goes wrong.
async function run(work) {
  say('');
  element('problem').textContent = '';
  element('steps').ariaBusy = true;
  try {
    await work();
  } catch (err) {
    element('problem').textContent = explain(err);
  }
  for (const [id, { needs }] of Object.entries(buttons)) element(id).disabled = !needs();
  element('steps').ariaBusy = false;
}

const buttons = {
  export: { work: readKey, needs: () => keys },
  renew: { work: renewKey, needs: () => keys },
  'sign-in': { work: signIn, needs: () => keys },
  call: { work: call, needs: () => token },
  replay: { work: replay, needs: () => accepted },
  bearer: { work: useAsBearer, needs: () => token },
  'other-key': { work: useWithOtherKey, needs: () => token },
};
for (const [id, { work }] of Object.entries(buttons)) {
  element(id).addEventListener('click', () => {
    if (element('steps').ariaBusy === 'false') run(work);
  });
}

await run(async () => {
  await use(await loadKey());
  const callback = new URL(location);
  history.replaceState(null, '', location.pathname); // the code is for no bookmark
  if (callback.searchParams.has('state')) await finishSignIn(callback);
});
