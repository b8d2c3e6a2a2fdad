// An OpenID provider with one client, batch, which gets JWT access tokens for the
// models by client credentials. The keys that sign are made at start and never
// kept: after a restart new tokens are needed.
//
//   ISSUER    its name, which is its address for clients
import { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import Provider, { errors } from 'oidc-provider';

const secret = (name) => readFileSync(`/run/secrets/${name}`, 'utf8').trim();
const resource = 'https://models.example';

// By way of PEM: a pair that was just made shares a lock between its two keys, and
// Node.js 20 at times waits for it for ever when one of them is exported as JWK.
const { privateKey } = generateKeyPairSync('ec', {
  namedCurve: 'P-256', publicKeyEncoding: { type: 'spki', format: 'pem' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});
const signing = { ...createPrivateKey(privateKey).export({ format: 'jwk' }), kid: randomBytes(8).toString('hex'), alg: 'ES256', use: 'sig' };

const provider = new Provider(process.env.ISSUER, {
  jwks: { keys: [signing] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  clients: [{
    client_id: 'batch',
    client_secret: secret('client_secret'),
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    // In the body: sallyport takes Authorization away from what it forwards.
    token_endpoint_auth_method: 'client_secret_post',
    id_token_signed_response_alg: 'ES256',
  }],
  scopes: ['models.predict', 'models.read'],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      getResourceServerInfo(_ctx, asked) {
        if (asked !== resource) throw new errors.InvalidTarget();
        return {
          audience: 'models', scope: 'models.predict models.read',
          accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'ES256' } },
        };
      },
    },
  },
});

const server = createServer({ cert: secret('provider_crt'), key: secret('provider_key') }, provider.callback());
server.listen(9000, () => console.log(`OpenID provider ${process.env.ISSUER}`));
process.on('SIGTERM', () => server.close(() => process.exit(0)));
