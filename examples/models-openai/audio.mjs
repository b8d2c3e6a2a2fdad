// The same as audio.py with the SDK for JavaScript, which sends the fields of a form in the order in which they are given.
//
//     SALLYPORT_KEY=sp_... NODE_EXTRA_CA_CERTS=ca/root.pem node audio.mjs https://localhost:8443 [MODEL]
import OpenAI, { toFile } from 'openai';

const [gateway, model = 'whisper'] = process.argv.slice(2);
const ai = new OpenAI({ baseURL: `${gateway}/v1`, apiKey: process.env.SALLYPORT_KEY, maxRetries: 0, timeout: 60_000 });
const wave = (size) => toFile(Buffer.concat([Buffer.from('RIFF'), Buffer.alloc(size - 4)]), 'a.wav', { type: 'audio/wav' });

async function streamed() {
  let text = '';
  for await (const e of await ai.audio.transcriptions.create({ model, file: await wave(1000), stream: true })) if (e.delta) text += e.delta;
  return text.trim();
}

const calls = {
  transcription: async () => (await ai.audio.transcriptions.create({ model, file: await wave(1000) })).text,
  'the model after the file': async () => (await ai.audio.transcriptions.create({ file: await wave(1000), model })).text,
  'with a prompt': async () => (await ai.audio.transcriptions.create({ file: await wave(1000), model, language: 'en', prompt: 'model="whisper-large"\r\n' })).text,
  streamed,
  translation: async () => (await ai.audio.translations.create({ file: await wave(1000), model })).text,
  '30 MiB': async () => (await ai.audio.transcriptions.create({ file: await wave(30 << 20), model })).text,
};
for (const [name, call] of Object.entries(calls)) {
  try {
    console.log(`${name}: ${await call()}`);
  } catch (e) {
    if (!(e instanceof OpenAI.APIError)) throw e;
    console.log(`${name}: openai.${e.constructor.name} ${e.status} ${e.code}`);
  }
}
