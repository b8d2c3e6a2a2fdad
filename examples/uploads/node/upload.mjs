// Uploads zeros with fetch (HTTP/1.1), or with undici over HTTP/2, and prints the status of each
// answer, or what came in its place.
//
//     node upload.mjs fetch|undici|undici2 URL MIB TIMES
import { readFileSync } from "node:fs";
import { Readable } from "node:stream";

const [library, url, mib, times] = process.argv.slice(2);
const size = Number(mib) * 1024 * 1024;

function* pieces() {
  for (let i = 0; i < size; i += 65536) yield Buffer.alloc(Math.min(65536, size - i));
}

async function once() {
  if (library === "fetch") {
    const res = await fetch(url, { method: "POST", body: Buffer.alloc(size) });
    await res.text();
    return res.status;
  }
  const { request, Agent } = await import("undici");
  const dispatcher = new Agent({ allowH2: library === "undici2", connect: { ca: readFileSync(process.env.NODE_EXTRA_CA_CERTS) } });
  // Node's HTTP/2 refuses the head of any answer while more than 10 MB of a body wait in its memory.
  const body = library === "undici2" ? Readable.from(pieces()) : Buffer.alloc(size);
  try {
    const res = await request(url, { method: "POST", body, dispatcher });
    await res.body.text();
    return res.statusCode;
  } finally {
    await dispatcher.destroy();
  }
}

for (let i = 0; i < Number(times); i++) {
  try {
    console.log(await once());
  } catch (e) {
    console.log(`${e.name}: ${e.message}: ${e.cause?.code ?? ""} ${e.cause?.message ?? ""}`);
  }
}
