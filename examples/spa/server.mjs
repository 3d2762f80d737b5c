// The authorization server of the example, on loopback: oidc-provider, with one
// client, which is the page, and one user, Alice, who needs no password.

import { generateKeyPairSync, randomBytes } from 'node:crypto';

import Provider from 'oidc-provider';

const issuer = new URL('http://localhost:3000');
const api = 'http://localhost:9000';
const pages = ['http://localhost:8080', 'http://localhost:8081'];
const scope = 'orders';

const provider = new Provider(issuer.origin, {
  clients: [{
    client_id: 'spa',
    token_endpoint_auth_method: 'none', // a page can keep no secret
    redirect_uris: pages.map((page) => `${page}/`),
    dpop_bound_access_tokens: true,
    id_token_signed_response_alg: 'ES256', // the key below is for this
  }],
  clientBasedCORS: (ctx, origin) => pages.includes(origin),
  features: {
    devInteractions: { enabled: false },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({ audience: api, scope, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }),
    },
  },
  renderError(ctx, { error, error_description: description }) {
    ctx.type = 'text';
    ctx.body = `${error}: ${description}`;
  },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  // Whoever has signed in has consented.
  async loadExistingGrant({ oidc: { client, session } }) {
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addResourceScope(api, scope);
    await grant.save();
    return grant;
  },
  // New ones at each start: tokens and sessions end with this process.
  jwks: { keys: [{ ...generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' }), alg: 'ES256' }] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
});

const signInPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; font: 1.05rem/1.5 system-ui, sans-serif; }
  body { display: grid; place-content: center; min-height: 90vh; margin: 1rem; text-align: center; }
  button { font: inherit; font-weight: 600; padding: .6rem 1.2rem; border: 0; border-radius: .5rem; color: #fff; background: #1d4ed8; }
</style>
<h1>Sign in</h1>
<p>This is the example’s authorization server. It asks for no password.</p>
<form method="post"><button autofocus>Continue as Alice</button></form>
`;

provider.use((ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  if (ctx.method !== 'POST') {
    ctx.body = signInPage;
    return undefined;
  }
  ctx.respond = false; // interactionFinished does
  return provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: 'alice' } });
});

provider.listen(issuer.port, '127.0.0.1', () => console.log(`The authorization server is ${issuer.origin}`));
