import { readIndex } from '../../generated/native/sdk.gen.js';
import { check, dataOf } from '../check.js';
import type { Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const { data: index } = await readIndex({ throwOnError: true });
  const openapi: string = dataOf(await api.GET('/')).openapi;
  check(index.name === 'Pressroom' && openapi === '/openapi.json', 'the index is read');
}
