// The same as client.py with the SDKs for JavaScript.
//
//     SALLYPORT_KEY=sp_... NODE_EXTRA_CA_CERTS=ca/root.pem node client.mjs https://localhost:8443 [MODEL]
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const [gateway, model = 'tiny'] = process.argv.slice(2);
const apiKey = process.env.SALLYPORT_KEY;
const ai = new OpenAI({ baseURL: `${gateway}/v1`, apiKey, maxRetries: 0, timeout: 30_000 });
const claude = new Anthropic({ baseURL: gateway, apiKey, maxRetries: 0, timeout: 30_000 });
const chat = { model, messages: [{ role: 'user', content: 'hi' }], max_tokens: 6 };

// Joins what came piece by piece, and says so if it did not.
async function streamed(stream, text) {
  const pieces = [];
  for await (const event of await stream) if (text(event)) pieces.push(text(event));
  return pieces.length > 1 ? pieces.join('') : 'in one piece';
}

const calls = {
  chat: async () => (await ai.chat.completions.create(chat)).choices[0].message.content,
  'chat streamed': () => streamed(ai.chat.completions.create({ ...chat, stream: true }), (c) => c.choices[0]?.delta.content),
  completion: async () => (await ai.completions.create({ model, prompt: 'hi', max_tokens: 6 })).choices[0].text,
  embeddings: async () => (await ai.embeddings.create({ model, input: ['hi'] })).data[0].embedding.length,
  responses: async () => (await ai.responses.create({ model, input: 'hi', max_output_tokens: 6 })).output_text,
  'responses streamed': () => streamed(ai.responses.create({ model, input: 'hi', max_output_tokens: 6, stream: true }), (e) => e.delta),
  messages: async () => (await claude.messages.create(chat)).content[0].text,
  'messages streamed': () => streamed(claude.messages.create({ ...chat, stream: true }), (e) => e.delta?.text),
};
for (const [name, call] of Object.entries(calls)) {
  try {
    console.log(`${name}: ${await call()}`);
  } catch (e) {
    if (e instanceof OpenAI.APIError) console.log(`${name}: openai.${e.constructor.name} ${e.status} ${e.code}: ${e.error?.message}`);
    else if (e instanceof Anthropic.APIError) console.log(`${name}: anthropic.${e.constructor.name} ${e.status}: ${e.error?.error?.message}`);
    else throw e;
  }
}
