// An MCP server with one tool, which says for whom the gateway let the call through. It checks
// nobody itself.
//
//   PORT  default 7000
import { createServer } from 'node:http';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

createServer(async (request, response) => {
  const server = new McpServer({ name: 'who', version: '1.0.0' });
  server.registerTool('who', { description: 'says who calls' }, async () => ({
    content: [{ type: 'text', text: `${request.headers['x-sallyport-principal']}, token ${request.headers.authorization ? 'seen' : 'not seen'}` }],
  }));
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  response.on('close', () => { transport.close(); server.close(); });
  await server.connect(transport);
  await transport.handleRequest(request, response);
}).listen(Number(process.env.PORT ?? 7000), '127.0.0.1');
