// Real clients of a protected resource:
//
//     node clients.mjs <issuer> <audience of the tokens> <URL of the resource>
//
// Each combination of library, grant, token algorithm and proof algorithm gets
// a token and makes some calls. A call is a case, and prints a line of JSON.

import * as oauth from 'oauth4webapi';
import * as oidc from 'openid-client';

import { clientSecret, proofAlgorithms, redirectUri, resource, scope, tokenKinds } from './agreed.mjs';
import { logIn, report, wire } from './calls.mjs';

const [issuer, audience, url] = process.argv.slice(2);

const libraries = {
  async 'openid-client'(clientId) {
    const config = await oidc.discovery(new URL(issuer), clientId, {}, oidc.ClientSecretPost(clientSecret), {
      execute: [oidc.allowInsecureRequests],
    });
    config[oidc.customFetch] = wire.fetch;
    return {
      newKey: async (algorithm) => oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair(algorithm)),
      grants: {
        client_credentials: (resource, DPoP) => oidc.clientCredentialsGrant(config, { resource, scope }, { DPoP }),
        async authorization_code(resource, DPoP) {
          const pkceCodeVerifier = oidc.randomPKCECodeVerifier();
          const expectedState = oidc.randomState();
          const callback = await logIn(oidc.buildAuthorizationUrl(config, {
            redirect_uri: redirectUri,
            resource,
            scope: `openid ${scope}`,
            state: expectedState,
            code_challenge: await oidc.calculatePKCECodeChallenge(pkceCodeVerifier),
            code_challenge_method: 'S256',
          }), redirectUri);
          return oidc.authorizationCodeGrant(config, callback, { pkceCodeVerifier, expectedState }, { resource }, { DPoP });
        },
      },
      call: (token, method, headers, body, DPoP) =>
        oidc.fetchProtectedResource(config, token, new URL(url), method, body, headers, { DPoP }),
    };
  },

  async oauth4webapi(clientId) {
    const options = { [oauth.allowInsecureRequests]: true };
    const identifier = new URL(issuer);
    const as = await oauth.processDiscoveryResponse(identifier, await oauth.discoveryRequest(identifier, options));
    const client = { client_id: clientId };
    const authentication = oauth.ClientSecretPost(clientSecret);
    return {
      newKey: async (algorithm) => oauth.DPoP(client, await oauth.generateKeyPair(algorithm)),
      grants: {
        async client_credentials(resource, DPoP) {
          const response = await oauth.clientCredentialsGrantRequest(as, client, authentication, { resource, scope }, { ...options, DPoP });
          return oauth.processClientCredentialsResponse(as, client, response);
        },
        async authorization_code(resource, DPoP) {
          const verifier = oauth.generateRandomCodeVerifier();
          const state = oauth.generateRandomState();
          const request = new URL(as.authorization_endpoint);
          request.search = new URLSearchParams({
            client_id: clientId,
            response_type: 'code',
            redirect_uri: redirectUri,
            resource,
            scope: `openid ${scope}`,
            state,
            code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
            code_challenge_method: 'S256',
          });
          const parameters = oauth.validateAuthResponse(as, client, await logIn(request, redirectUri), state);
          const response = await oauth.authorizationCodeGrantRequest(as, client, authentication, parameters, redirectUri, verifier, {
            ...options, DPoP, additionalParameters: { resource },
          });
          return oauth.processAuthorizationCodeResponse(as, client, response, { requireIdToken: true });
        },
      },
      call: (token, method, headers, body, DPoP) =>
        oauth.protectedResourceRequest(token, method, new URL(url), headers, body, { ...options, DPoP, [oauth.customFetch]: wire.fetch }),
    };
  },
};

for (const [name, connect] of Object.entries(libraries)) {
  const library = await connect(name);
  for (const proofAlgorithm of proofAlgorithms) {
    const [key, otherKey] = await Promise.all([library.newKey(proofAlgorithm), library.newKey(proofAlgorithm)]);
    for (const [grant, getToken] of Object.entries(library.grants)) {
      for (const tokenAlgorithm of tokenKinds) {
        const { access_token: token } = await getToken(resource(audience, tokenAlgorithm), key);
        const run = async (kind, method, DPoP) => {
          const id = [name, grant, tokenAlgorithm, proofAlgorithm, kind].join('/');
          const body = method === 'POST' ? JSON.stringify({ case: id }) : null;
          await report(id, token, (headers) => library.call(token, method, headers, body, DPoP));
        };
        await run('get', 'GET', key);
        await run('post', 'POST', key);
        wire.stolen = wire.proof;
        await run('replay', 'POST', key);
        wire.stolen = undefined;
        await run('other-key', 'GET', otherKey);
        await run('bearer', 'GET', undefined);
      }
    }
  }
}
