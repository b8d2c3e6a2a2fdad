// What the npm packages do of themselves, a line for each, as the README tells it.
//
//     NODE_EXTRA_CA_CERTS=root.pem node quirks.mjs http-message-signatures|http-message-sig https://localhost:8443/predict interop-2026-11 interop.key
import { createHash, createHmac, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";

const [peer, url, keyid, file] = process.argv.slice(2);
const secret = Buffer.from(readFileSync(file, "ascii"), "base64");
const mac = (data) => createHmac("sha256", secret).update(data).digest();
const body = '{"a": 1}';
const headers = {
  "content-type": "application/json",
  "content-digest": `sha-256=:${createHash("sha256").update(body).digest("base64")}:`,
};
const tell = (name, what) => console.log(`${name}: ${what}`);
const reason = async (headers) => {
  const r = await fetch(url, { method: "POST", headers, body });
  return r.ok ? "taken" : (await r.json()).reason;
};
const caught = async (call) => {
  try {
    return String(await call());
  } catch (e) {
    return e.code ?? e.message;
  }
};

const peers = {
  async "http-message-signatures"() {
    const { createSigner, createVerifier, httpbis } = await import("http-message-signatures");
    const key = createSigner(secret, "hmac-sha256", keyid);
    const sign = (config, message = { method: "POST", url, headers }, request) => httpbis.signMessage({ key, ...config }, message, request);
    const fields = ["@method", "@authority", "@path", "@query", "content-digest"];
    const plain = await sign({ fields });
    tell("parameters", plain.headers["Signature-Input"].replace(/\(.*?\)/, "()").replace(keyid, "ID").replace(/\d{9,}/g, "N"));
    const [created, expires] = plain.headers["Signature-Input"].match(/(?:created|expires)=(\d+)/g).map((s) => +s.split("=")[1]);
    tell("expires after", expires - created);
    tell("defaults", await reason(plain.headers));
    const params = ["created", "keyid", "tag"];
    tell("with tag", await reason((await sign({ fields, params, paramValues: { tag: "sallyport-req" } })).headers));
    fields.push("content-type");
    tell("with content-type", await reason((await sign({ fields, params, paramValues: { tag: "sallyport-req" } })).headers));
    const nonce = randomBytes(16).toString("base64url");
    tell("with nonce", await reason((await sign({ fields, params: [...params, "nonce"], paramValues: { tag: "sallyport-req", nonce } })).headers));
    const small = await sign({ fields: ["@method"] }, { method: "post", url, headers });
    const base = `"@method": POST\n"@signature-params": ${small.headers["Signature-Input"].slice(4)}`;
    tell("method post is signed as", small.headers.Signature === `sig=:${mac(base).toString("base64")}:` ? "POST" : "post");

    const verify = (config, message, request) =>
      httpbis.verifyMessage({ keyLookup: async () => ({ verify: createVerifier(secret, "hmac-sha256") }), ...config }, message, request);
    const answer = { status: 200, headers };
    const request = { method: "POST", url, headers };
    tell("verifies @status alone", await verify({}, await sign({ fields: ["@status"] }, answer)));
    const bound = await sign({ fields: ['"content-digest";req'] }, answer, request);
    tell('requires content-digest, is given "content-digest";req', await verify({ requiredFields: ["content-digest"] }, bound, request));
    const header = await sign({ fields: ['"content-digest";tr'] }, answer);
    tell('takes the header for "content-digest";tr', await caught(() => verify({}, header)));
  },
  async "http-message-sig"() {
    const { appendSignature, component, createSignature, verifySignature } = await import("http-message-sig");
    const signer = { algorithm: "hmac-sha256", sign: async (base) => new Uint8Array(mac(base)) };
    const sign = async (parameters, components, label = "sig") => {
      const r = new Request(url, { method: "POST", headers });
      const created = Math.floor(Date.now() / 1000);
      return appendSignature(r.headers, await createSignature(r, { label, components, parameters: { created, keyid, ...parameters }, signer }));
    };
    const components = ["@method", "@authority", "@path", "@query", "content-digest", "content-type"];
    tell("with created and keyid", await reason(await sign({}, components)));
    const nonce = randomBytes(16).toString("base64url");
    const good = await sign({ tag: "sallyport-req", nonce }, components);
    tell("with tag and nonce", await reason(good));
    tell("tr", await caught(() => component("content-digest", { tr: true })));
    const policy = { algorithms: ["hmac-sha256"], requiredComponents: ["@method"], requiredParameters: ["created"] };
    const verifier = { algorithm: "hmac-sha256", verify: async (base, got) => mac(base).equals(Buffer.from(got)) };
    const verify = (headers, options) =>
      caught(async () => (await verifySignature(new Request(url, { method: "POST", headers }), { policy, resolveVerifier: () => verifier, ...options })).label);
    tell("one signature, no label asked for", await verify(good));
    const r = new Request(url, { method: "POST", headers });
    const second = await createSignature(r, { label: "other", components: ["@method"], parameters: { created: 1, keyid }, signer });
    const two = appendSignature(good, second);
    tell("two signatures, no label asked for", await verify(two));
    tell("two signatures, a label asked for", await verify(two, { label: "sig" }));
    const twice = new Headers(good);
    twice.append("signature", good.get("signature"));
    tell("a label twice", await verify(twice));
    tell("no policy", await verify(good, { policy: undefined }).then((s) => (s === "sig" ? s : "refused")));
  },
};
await peers[peer]();
