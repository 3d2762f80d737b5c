// A service that calls the API with a token bound to its key, and what a thief of
// that token gets. It needs `npm install openid-client`:
//
//     CLIENT_SECRET=... node client.mjs <issuer> <client id> <URL>

import * as client from 'openid-client';

const [issuer, clientId, url] = process.argv.slice(2);
const config = await client.discovery(
  new URL(issuer),
  clientId,
  {},
  client.ClientSecretBasic(process.env.CLIENT_SECRET),
  { execute: [client.allowInsecureRequests] }, // only because the issuer is on this machine
);

// Whatever has this key pair can use the tokens. Keep it as you keep the secret.
const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'));

const { access_token: token } = await client.clientCredentialsGrant(config, {}, { DPoP });
const response = await client.fetchProtectedResource(config, token, new URL(url), 'GET', null, null, { DPoP });
console.log('with the key:', response.status, await response.text());

for (const scheme of ['DPoP', 'Bearer']) {
  const refused = await fetch(url, { headers: { authorization: `${scheme} ${token}` } });
  console.log(`without it, as ${scheme}:`, refused.status, refused.headers.get('www-authenticate'));
}
