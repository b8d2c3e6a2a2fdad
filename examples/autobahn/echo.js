// A WebSocket server that sends back each message. It is strict: ws checks masks, UTF-8 and
// the form of frames, and closes with the code of RFC 6455, section 7.4.
import { WebSocketServer } from 'ws'

const [host, port] = process.argv[2].split(':')
const server = new WebSocketServer({
  host,
  port,
  maxPayload: 16 * 1024 * 1024,
  maxFragments: 0, // the suite cuts 4 MiB into 65536 parts
  perMessageDeflate: true
})
server.on('listening', () => console.log('serves'))
server.on('connection', socket => {
  socket.on('error', () => {}) // ws has closed the connection, as it should
  socket.on('message', (data, binary) => socket.send(data, { binary }))
})
