// A double of a server of OpenAI's Realtime API, which chooses no subprotocol, and of a chat server, which
// chooses the first. The first message has the field lines that the server was sent; it echoes the rest.
import { WebSocketServer } from 'ws'

const realtime = (request) => request.url.startsWith('/v1/realtime')

new WebSocketServer({
  host: '127.0.0.1',
  port: Number(process.env.PORT),
  handleProtocols: (offered, request) => !realtime(request) && !request.url.endsWith('silent') && [...offered][0],
}).on('connection', (socket, request) => {
  console.log(`opened ${request.url}`)
  socket.send(JSON.stringify({ type: 'session.created', event_id: 'first', session: { url: request.url, headers: request.rawHeaders } }))
  socket.on('message', (message) => socket.send(realtime(request) ? `{"type":"response.done","event_id":"echo","response":${message}}` : `echo ${message}`))
})
