// What the provider and its clients have agreed on beforehand.

export const clientIds = ['openid-client', 'oauth4webapi'];
export const clientSecret = 'a secret of the test';
export const redirectUri = 'https://client.example.com/callback'; // never called
export const scope = 'orders';

// Ed25519 keys sign under two names: EdDSA (RFC 8037) and Ed25519 (RFC 9864).
export const tokenAlgorithms = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'];
export const proofAlgorithms = ['RS256', 'PS256', 'ES256', 'Ed25519'];

// A token is signed by one of these, or is opaque: then the gateway asks the
// provider about it, as a client of its own, and is answered by a signed JWT.
export const opaque = 'opaque';
export const tokenKinds = [...tokenAlgorithms, opaque];
export const gateway = { client_id: 'gateway', client_secret: 'a secret: 100% + more' };

// The same API under a name for each algorithm, by which a client chooses how
// its token is signed.
export const resource = (api, algorithm) => `${api}/${algorithm}`;
