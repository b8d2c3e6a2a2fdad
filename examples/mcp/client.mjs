// An MCP client that knows the URL of a server, and a client id and secret, and nothing of the
// OpenID provider: node client.mjs https://localhost:8443/mcp. It prints each request.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { ClientCredentialsProvider } from '@modelcontextprotocol/sdk/client/auth-extensions.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const client = new Client({ name: 'story', version: '1.0.0' });
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2]), {
  authProvider: new ClientCredentialsProvider({
    clientId: 'batch', clientSecret: process.env.CLIENT_SECRET, scope: 'models.predict', expectedIssuer: process.env.ISSUER,
  }),
  async fetch(url, options) {
    const response = await fetch(url, options);
    console.log(options?.method ?? 'GET', String(url), response.status);
    return response;
  },
}));
const { content } = await client.callTool({ name: 'who', arguments: {} });
console.log(content[0].text);
await client.close();
