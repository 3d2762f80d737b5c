// A real authorization server on loopback, until its standard input closes:
//
//     node provider.mjs <audience of the tokens> [nonces]
//
// prints a line {"issuer": ...} once it is ready. With nonces, its token endpoint
// demands them of proofs.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

import { clientIds, clientSecret, gateway, opaque, proofAlgorithms, redirectUri, resource, scope, tokenAlgorithms } from './agreed.mjs';

const [audience, nonces] = process.argv.slice(2);

const server = createServer().listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const keyTypes = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519'],
  Ed25519: ['ed25519'],
};
const signingKey = (alg) => ({ ...generateKeyPairSync(...keyTypes[alg]).privateKey.export({ format: 'jwk' }), alg });

const resourceServers = new Map(tokenAlgorithms.map((alg) => [
  resource(audience, alg),
  { audience, scope, accessTokenFormat: 'jwt', jwt: { sign: { alg } } },
]));
resourceServers.set(resource(audience, opaque), { audience, scope, accessTokenFormat: 'opaque' });

const provider = new Provider(issuer, {
  clients: [
    ...clientIds.map((id) => ({
      client_id: id,
      client_secret: clientSecret,
      token_endpoint_auth_method: 'client_secret_post',
      redirect_uris: [redirectUri],
      grant_types: ['client_credentials', 'authorization_code'],
    })),
    {
      ...gateway,
      token_endpoint_auth_method: 'client_secret_basic',
      redirect_uris: [],
      response_types: [],
      grant_types: [],
      introspection_signed_response_alg: 'ES256',
    },
  ],
  jwks: { keys: tokenAlgorithms.map(signingKey) },
  enabledJWA: { dPoPSigningAlgValues: proofAlgorithms },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    dPoP: { enabled: true, ...(nonces && { nonceSecret: randomBytes(32), requireNonce: () => true }) },
    introspection: { enabled: true },
    jwtIntrospection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, indicator) => resourceServers.get(indicator),
    },
  },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  // Whoever has logged in has consented to everything.
  async loadExistingGrant({ oidc: { client, session } }) {
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid');
    for (const indicator of resourceServers.keys()) grant.addResourceScope(indicator, scope);
    await grant.save();
    return grant;
  },
});

// Whoever is asked to log in is Alice.
provider.use((ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  ctx.respond = false; // interactionFinished does
  return provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: 'alice' } });
});

server.on('request', provider.callback());
console.log(JSON.stringify({ issuer }));

process.stdin.resume().on('end', () => process.exit());
