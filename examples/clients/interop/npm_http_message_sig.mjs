// The npm package http-message-sig 0.3.0 as a client: signs a call, and verifies the answer.
//
//     NODE_EXTRA_CA_CERTS=root.pem node npm_http_message_sig.mjs https://localhost:8443/predict acme-2026-11 acme.key '{"a": 40, "b": 2}'
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { appendSignature, component, createSignature, verifySignature } from "http-message-sig";

const [url, keyid, file, body] = process.argv.slice(2);
const secret = Buffer.from(readFileSync(file, "ascii"), "base64");
const mac = (data) => createHmac("sha256", secret).update(data).digest();
const digest = (content) => `sha-256=:${createHash("sha256").update(content).digest("base64")}:`;
const bound = ["@method", "@authority", "@path", "@query"];

async function post(url, content) {
  const nonce = randomBytes(16).toString("base64url");
  const created = Math.floor(Date.now() / 1000);
  const plain = new Request(url, {
    method: "POST",
    headers: { "content-type": "application/json", "content-digest": digest(content), "accept-encoding": "identity" },
  });
  const signature = await createSignature(plain, {
    label: "sig1",
    components: [...bound, "content-digest", "content-type"],
    parameters: { created, expires: created + 60, nonce, keyid, alg: "hmac-sha256", tag: "sallyport-req" },
    signer: { algorithm: "hmac-sha256", sign: async (base) => new Uint8Array(mac(base)) },
  });
  const headers = appendSignature(plain.headers, signature);
  const response = await fetch(url, { method: "POST", headers, body: content, redirect: "manual" });
  const answer = Buffer.from(await response.arrayBuffer());
  await verifySignature(
    {
      kind: "response",
      status: response.status,
      fields: [...response.headers].map(([name, value]) => ({ name, value })),
      request: {
        kind: "request",
        method: "POST",
        targetUri: plain.url,
        fields: [...headers].map(([name, value]) => ({ name, value })),
      },
    },
    {
      policy: {
        algorithms: ["hmac-sha256"],
        requiredComponents: ["@status", "content-digest", ...bound.map((c) => component(c, { req: true })), component("content-digest", { req: true })],
        requiredParameters: ["created", "nonce", "keyid", "tag"],
        maxAge: 60,
        clockSkew: 30,
        validate: (v) => v.parameters.nonce === nonce && v.parameters.tag === "sallyport-resp",
      },
      resolveVerifier: async ({ parameters }) => {
        if (parameters.keyid !== keyid) throw new Error(`unknown key ${parameters.keyid}`);
        return { algorithm: "hmac-sha256", verify: async (base, got) => got.length === 32 && timingSafeEqual(mac(base), got) };
      },
    },
  );
  if (response.headers.get("content-digest") !== digest(answer)) throw new Error("the content of the answer is not what was signed");
  return [response.status, answer];
}

try {
  const [status, answer] = await post(url, Buffer.from(body));
  console.log(status, answer.toString().trim());
} catch (e) {
  console.error(`${e.name}: ${e.code ?? ""} ${e.message}`);
  process.exitCode = 1;
}
