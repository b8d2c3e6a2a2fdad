// A certified OpenID provider for the stories: one client, batch, that gets access
// tokens by client credentials, and one, gateway, that may introspect them. Keys,
// certificate and cookies are made at start and never kept.
//
//   PORT           default 9000
//   CLIENT_SECRET  the clients' secret; without it one is made and printed
//   TOKEN_FORMAT   jwt or opaque; default jwt
//   TLS_DIR        where provider.crt and provider.key lie or are made; default here
import { execFileSync } from 'node:child_process';
import { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import Provider, { errors } from 'oidc-provider';

const port = Number(process.env.PORT ?? 9000);
const secret = process.env.CLIENT_SECRET ?? randomBytes(24).toString('base64url');
const dir = process.env.TLS_DIR ?? import.meta.dirname;
const issuer = `https://localhost:${port}`;
const lifetime = Number(process.env.TOKEN_LIFETIME ?? 600);

// What a client may ask a token for: each resource is an audience of its own.
const resources = {
  'https://models.example': { audience: 'models', scope: 'models.predict models.read' },
  'https://other.example': { audience: 'billing', scope: 'models.predict' },
};

function signingKey(kid, alg, type, options) {
  // By way of PEM: a pair that was just made shares a lock between its two keys, and
  // Node.js 20 at times waits for it for ever when one of them is exported as JWK.
  const { privateKey } = generateKeyPairSync(type, {
    ...options, publicKeyEncoding: { type: 'spki', format: 'pem' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  return { ...createPrivateKey(privateKey).export({ format: 'jwk' }), kid, alg, use: 'sig' };
}

const provider = new Provider(issuer, {
  jwks: { keys: [signingKey('rs', 'RS256', 'rsa', { modulusLength: 2048 }), signingKey('es', 'ES256', 'ec', { namedCurve: 'P-256' })] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  clients: [{
    client_id: 'batch',
    client_secret: secret,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    token_endpoint_auth_method: 'client_secret_basic',
  }, {
    client_id: 'gateway',
    client_secret: secret,
    grant_types: [],
    redirect_uris: [],
    response_types: [],
    token_endpoint_auth_method: 'client_secret_basic',
    introspection_signed_response_alg: 'RS256',
  }],
  scopes: ['models.predict', 'models.read'],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (_ctx, client) => client.clientId === 'gateway' },
    jwtIntrospection: { enabled: true },
    revocation: { enabled: true, allowedPolicy: (_ctx, client, token) => client.clientId === token.clientId },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'https://models.example',
      getResourceServerInfo(_ctx, resource) {
        // For the MCP server of a story, whose port differs from run to run.
        const r = resources[/^https:\/\/localhost:\d+\/mcp$/.test(resource) ? 'https://models.example' : resource];
        if (!r) throw new errors.InvalidTarget();
        return { ...r, accessTokenFormat: process.env.TOKEN_FORMAT ?? 'jwt', accessTokenTTL: lifetime, jwt: { sign: { alg: process.env.TOKEN_ALG ?? 'RS256' } } };
      },
    },
  },
});

const crt = join(dir, 'provider.crt');
const key = join(dir, 'provider.key');
if (!existsSync(crt) || !existsSync(key)) {
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', crt], { stdio: 'pipe' });
}

createServer({ cert: readFileSync(crt), key: readFileSync(key) }, provider.callback()).listen(port, '127.0.0.1', () => {
  console.log(`OpenID provider ${issuer}, certificate ${crt}, client batch${process.env.CLIENT_SECRET ? '' : `, secret ${secret}`}`);
});
