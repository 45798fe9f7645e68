// Usage: node run.mjs URL
import { main } from './compiled/typescript/main.js';

await main(process.argv[2]);
