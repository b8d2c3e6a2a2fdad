// An OpenID provider where people sign in: alice and bob. Its clients are the gateway (pages) and
// Swagger UI, a public client that runs in the browser (docs). Keys are made at start and never kept.
//
//   PORT, GATEWAY_PORT   default 9000 and 8443
//   HOSTS                of the gateway, without .localhost; default those of this example
//   CLIENT_SECRET        of the client pages
//   TLS_DIR              where provider.pem and provider.key lie; default here
import dns from 'node:dns';
import { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import Provider from 'oidc-provider';

const { PORT = 9000, GATEWAY_PORT = 8443, HOSTS = 'tensorboard streamlit jupyter api mlflow', CLIENT_SECRET, TLS_DIR = import.meta.dirname } = process.env;
const at = (host, path) => `https://${host}.localhost:${GATEWAY_PORT}${path}`;
const hosts = HOSTS.split(' ');
const resource = 'https://models.example';

const people = {
  alice: { name: 'Alice', email: 'alice@example.com', email_verified: true, groups: ['ml', 'Data Science'] },
  bob: { name: 'Bob', email: 'bob@example.com', email_verified: false, groups: ['guests'] },
};

// Names under localhost are this machine (RFC 6761, 6.3). Browsers know that, and not every system does.
const { lookup } = dns;
dns.lookup = (name, ...rest) => lookup(name.endsWith('.localhost') ? 'localhost' : name, ...rest);

const { privateKey } = generateKeyPairSync('ec', {
  namedCurve: 'P-256', publicKeyEncoding: { type: 'spki', format: 'pem' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});

const provider = new Provider(`https://localhost:${PORT}`, {
  jwks: { keys: [{ ...createPrivateKey(privateKey).export({ format: 'jwk' }), kid: 'es', alg: 'ES256', use: 'sig' }] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  clients: [{
    client_id: 'pages',
    client_name: 'Model lab',
    client_secret: CLIENT_SECRET,
    grant_types: ['authorization_code', 'refresh_token'],
    redirect_uris: hosts.flatMap((host) => ['main', 'again'].map((login) => at(host, `/.sallyport/callback/${login}`))),
    post_logout_redirect_uris: hosts.map((host) => at(host, '/.sallyport/signed-out')),
    backchannel_logout_uri: at(hosts[0], '/.sallyport/backchannel-logout'),
    backchannel_logout_session_required: true,
    id_token_signed_response_alg: 'ES256',
  }, {
    client_id: 'docs',
    client_name: 'Swagger UI',
    token_endpoint_auth_method: 'none', // a page keeps no secret; PKCE stands in for it
    grant_types: ['authorization_code'],
    redirect_uris: [at('api', '/docs/oauth2-redirect')],
    id_token_signed_response_alg: 'ES256',
  }],
  claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'], groups: ['groups'] }, // at userinfo
  scopes: ['openid'],
  ttl: { AccessToken: 10 }, // seconds, so that sessions are refreshed while one looks
  rotateRefreshToken: true,
  issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
  pkce: { required: () => true },
  clientBasedCORS: (_ctx, origin, client) => client.clientId === 'docs' && origin === at('api', ''), // Swagger UI fetches its token
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (_ctx, client) => (client.clientId === 'docs' ? resource : undefined),
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ audience: 'models', scope: 'models.predict', accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'ES256' } } }),
    },
  },
  findAccount: (_ctx, id) => Object.hasOwn(people, id) ? { accountId: id, claims: () => ({ sub: id, ...people[id] }) } : undefined,
  fetch: (url, { dispatcher, ...options }) => fetch(url, options), // without the guard against loopback, where the gateway is
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  // Both clients are the house's own, so nobody is asked for consent.
  async loadExistingGrant({ oidc }) {
    const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope('openid profile email groups models.predict');
    grant.addResourceScope(resource, 'models.predict');
    await grant.save();
    return grant;
  },
});

const form = (note) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>Sign in</title><link rel="icon" href="data:,">
<form method="post"><h1>Sign in</h1><p>${note}</p><p><label>Name <input name="name" autofocus></label></p>
<p><label>Password <input name="password" type="password"></label></p><button>Sign in</button></form></html>`;

// signIn shows the form, and ends the interaction when the password is right: "a password of NAME".
async function signIn(req, res) {
  const { prompt } = await provider.interactionDetails(req, res); // throws if the browser has no such interaction
  if (prompt.name !== 'login') throw new Error(`nothing here asks for ${prompt.name}`);
  let note = '';
  if (req.method === 'POST') {
    let body = '';
    for await (const chunk of req) body += chunk;
    const given = new URLSearchParams(body);
    const name = given.get('name');
    if (Object.hasOwn(people, name) && given.get('password') === `a password of ${name}`) {
      return provider.interactionFinished(req, res, { login: { accountId: name } });
    }
    note = 'Wrong name or password.';
  }
  res.writeHead(200, { 'Content-Type': 'text/html', 'Cache-Control': 'no-store' }).end(form(note));
}

provider.on('server_error', (_ctx, err) => console.error(err));
provider.on('backchannel.error', (_ctx, err) => console.error('back-channel logout:', err));
provider.on('backchannel.success', (_ctx, client, account) => console.log(`told ${client.clientId} that ${account} signed out`));
provider.on('grant.success', ({ oidc }) => console.log(`tokens for ${oidc.client.clientId}: ${oidc.params.grant_type}`));

const rest = provider.callback();
createServer({ cert: readFileSync(join(TLS_DIR, 'provider.pem')), key: readFileSync(join(TLS_DIR, 'provider.key')) }, (req, res) => {
  if (!req.url.startsWith('/interaction/')) return rest(req, res);
  signIn(req, res).catch((err) => { console.error(err); res.writeHead(400).end('This sign-in is over. Go back to the page that you wanted.'); });
}).listen(PORT, '127.0.0.1', () => console.log(`OpenID provider https://localhost:${PORT}`));
