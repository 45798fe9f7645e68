// Usage: node generate.mjs URL
//
// Generates clients from the OpenAPI documents of a running server: types with openapi-typescript, and functions and
// validators with hey-api.
import { mkdirSync, writeFileSync } from 'node:fs';
import { createClient } from '@hey-api/openapi-ts';
import openapiTS, { astToString } from 'openapi-typescript';

const url = process.argv[2];
const documents = { native: '/openapi.json', conduit: '/api/openapi.json' };

mkdirSync('generated', { recursive: true });
for (const [name, path] of Object.entries(documents)) {
  const document = await (await fetch(url + path)).json();
  writeFileSync(`generated/${name}.ts`, astToString(await openapiTS(structuredClone(document))));
  await createClient({
    input: document,
    logs: { level: 'silent' },
    output: { path: `generated/${name}`, importFileExtension: '.js' },
    plugins: ['@hey-api/client-fetch', '@hey-api/typescript', { name: '@hey-api/sdk', validator: true }, 'zod'],
  });
}
