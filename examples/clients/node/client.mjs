// Calls a model through sallyport from Node.js, signed, and acts on the answer only if the gateway signed it for this call.
//
//     NODE_EXTRA_CA_CERTS=root.pem node client.mjs https://localhost:8443/predict acme-2026-11 acme.key '{"a": 40, "b": 2}'
//
// The settings are those of the npm package http-message-signatures 1.0.6; what it does not check is checked here.
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSigner, createVerifier, httpbis } from "http-message-signatures";

const [url, keyid, file, body] = process.argv.slice(2);
const secret = Buffer.from(readFileSync(file, "ascii"), "base64");

const digest = (content) => `sha-256=:${createHash("sha256").update(content).digest("base64")}:`;

async function post(url, content) {
  const nonce = randomBytes(16).toString("base64url");
  const created = new Date();
  const request = await httpbis.signMessage(
    {
      key: createSigner(secret, "hmac-sha256", keyid),
      name: "sp",
      fields: ["@method", "@authority", "@path", "@query", "content-digest", "content-type"],
      params: ["created", "expires", "nonce", "keyid", "tag"],
      paramValues: { created, expires: new Date(created.getTime() + 60_000), nonce, tag: "sallyport-req" },
    },
    {
      method: "POST",
      url: new URL(url).href, // percent-encoded as fetch sends it
      headers: {
        "content-type": "application/json",
        "content-digest": digest(content),
        "accept-encoding": "identity", // fetch decodes what is coded, and the digest is of what was sent
      },
    },
  );
  const response = await fetch(request.url, { method: request.method, headers: request.headers, body: content, redirect: "manual" });
  const answer = Buffer.from(await response.arrayBuffer());
  await verify(response, answer, request, nonce);
  return [response.status, answer];
}

async function verify(response, answer, request, nonce) {
  const headers = Object.fromEntries(response.headers);
  const verified = await httpbis.verifyMessage(
    {
      // Others' signatures are passed over: null.
      keyLookup: async (p) =>
        p.tag === "sallyport-resp" && p.keyid === keyid && p.nonce === nonce ? { ...createVerifierKey(), id: keyid } : null,
      requiredParams: ["created", "nonce", "keyid", "tag"],
      requiredFields: ["@status", "content-digest", "@method", "@authority", "@path", "@query"],
      maxAge: 60,
      tolerance: 30,
    },
    { status: response.status, headers },
    request,
  );
  // requiredFields does not tell "content-digest" from "content-digest";req.
  const covered = /[( ]"content-digest"[ )]/.test(headers["signature-input"] ?? "");
  if (verified !== true || !covered) throw new Error(`the answer with status ${response.status} is not signed for this call: ${answer.subarray(0, 200)}`);
  if (headers["content-digest"] !== digest(answer)) throw new Error("the content of the answer is not what was signed");
}

function createVerifierKey() {
  return { algs: ["hmac-sha256"], verify: createVerifier(secret, "hmac-sha256") };
}

try {
  const [status, answer] = await post(url, Buffer.from(body));
  console.log(status, answer.toString().trim());
} catch (e) {
  console.error(`${e.name}: ${e.message}`);
  process.exitCode = 1;
}
