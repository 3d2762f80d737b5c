// A real client whose clock is wrong:
//
//     node skew.mjs <issuer> <audience> <seconds> '{"site": origin, ...}'
//
// calls each site, and prints a line of JSON of each call. Whenever it reads a
// line from standard input it calls them all again, with the nonces that it has.

import { createInterface } from 'node:readline';

import * as oidc from 'openid-client';

import { clientIds, clientSecret, resource, scope } from './agreed.mjs';
import { report } from './calls.mjs';

const [issuer, audience, seconds, sites] = process.argv.slice(2);
const connect = (metadata) => oidc.discovery(new URL(issuer), clientIds[0], metadata, oidc.ClientSecretPost(clientSecret), {
  execute: [oidc.allowInsecureRequests],
});

// The token is from a time when the clock was right.
const keys = await oidc.randomDPoPKeyPair('ES256');
const honest = await connect({});
const DPoP = oidc.getDPoPHandle(honest, keys);
const { access_token: token } = await oidc.clientCredentialsGrant(honest, { resource: resource(audience, 'ES256'), scope }, { DPoP });

const wrong = await connect({ [oidc.clockSkew]: Number(seconds) });
const handle = oidc.getDPoPHandle(wrong, keys);
let round = 0;
async function callAll() {
  for (const [site, origin] of Object.entries(JSON.parse(sites))) {
    await report(`${round}/${site}`, token, (headers) =>
      oidc.fetchProtectedResource(wrong, token, new URL(origin), 'GET', null, headers, { DPoP: handle }));
  }
  round++;
}

await callAll();
for await (const _ of createInterface({ input: process.stdin })) await callAll();
