// Real clients of an API whose tokens Keycloak issues:
//
//     node keycloak.mjs '{"issuer": ..., "path": ..., "sites": {name: origin}, "secrets": {client: secret}, "password": ...}'
//
// They get tokens in every way that the realm of examples/keycloak has, and make
// some calls with each on each site. A call is a case, and prints a line of JSON.
// Then, until standard input closes, they get a token a call as fast as they can,
// and print the id of the key that signed it, and the status.

import { setTimeout } from 'node:timers/promises';

import * as oidc from 'openid-client';

import { decodeHeader, logIn, report, wire } from './calls.mjs';

const { issuer, path, sites, secrets, password } = JSON.parse(process.argv[2]);
const redirectUri = 'http://127.0.0.1/callback'; // never called

async function connect(clientId) {
  const authentication = secrets[clientId] ? oidc.ClientSecretBasic(secrets[clientId]) : oidc.None();
  const config = await oidc.discovery(new URL(issuer), clientId, {}, authentication, { execute: [oidc.allowInsecureRequests] });
  config[oidc.customFetch] = wire.fetch;
  return config;
}

const newKey = async (config, algorithm) => oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair(algorithm));

// byService returns a client's token for itself, and its key, if the token is to be bound.
async function byService(clientId, algorithm) {
  const config = await connect(clientId);
  const key = algorithm && (await newKey(config, algorithm));
  const { access_token: token } = await oidc.clientCredentialsGrant(config, {}, { DPoP: key });
  return { config, key, token };
}

// byUser returns the token of an app that Alice has logged in to, and its key.
async function byUser(clientId, algorithm) {
  const config = await connect(clientId);
  const key = await newKey(config, algorithm);
  const pkceCodeVerifier = oidc.randomPKCECodeVerifier();
  const expectedState = oidc.randomState();
  const callback = await logIn(oidc.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: 'openid',
    state: expectedState,
    code_challenge: await oidc.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
  }), redirectUri, { username: 'alice', password });
  const { access_token: token } = await oidc.authorizationCodeGrant(config, callback, { pkceCodeVerifier, expectedState }, {}, { DPoP: key });
  return { config, key, token };
}

const send = ({ config, token }, site, DPoP, headers) =>
  oidc.fetchProtectedResource(config, token, new URL(path, sites[site]), 'GET', null, headers, { DPoP });

const tokens = {
  service: await byService('service', 'ES256'),
  'slim-service': await byService('slim-service', 'RS256'),
  'old-service': await byService('old-service'),
  app: await byUser('app', 'PS256'),
};

for (const site of Object.keys(sites)) {
  for (const [name, token] of Object.entries(tokens)) {
    const run = (kind, DPoP) => report(`${site}/${name}/${kind}`, token.token, (headers) => send(token, site, DPoP, headers));
    const otherKey = await newKey(token.config, 'ES256');
    await run('dpop', token.key ?? otherKey);
    wire.stolen = wire.proof;
    await run('replay', token.key ?? otherKey);
    wire.stolen = undefined;
    await run('other-key', otherKey);
    await run('bearer', undefined);
  }
}

// A token that has been used is revoked. It goes on being accepted where nobody
// asks Keycloak, and elsewhere for as long as its answer may serve.
const revoked = await byService('service', 'ES256');
for (const site of Object.keys(sites)) {
  await report(`${site}/revoked/before`, revoked.token, (headers) => send(revoked, site, revoked.key, headers));
}
await oidc.tokenRevocation(revoked.config, revoked.token);
await setTimeout(6_000); // the example says cache 5s
for (const site of Object.keys(sites)) {
  await report(`${site}/revoked/after`, revoked.token, (headers) => send(revoked, site, revoked.key, headers));
}

let ended = false;
process.stdin.resume().on('end', () => (ended = true));
await Promise.all(Object.keys(sites).map(async (site) => {
  const { config, key } = tokens.service;
  while (!ended) {
    const { access_token: token } = await oidc.clientCredentialsGrant(config, {}, { DPoP: key });
    const response = await send({ config, token }, site, key, new Headers({ 'X-Case': `${site}/traffic` }));
    await response.text();
    console.log(JSON.stringify({ case: `${site}/traffic`, kid: decodeHeader(token).kid, status: response.status }));
  }
}));
