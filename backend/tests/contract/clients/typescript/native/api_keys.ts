import { createApiKey, deleteApiKey } from '../../generated/native/sdk.gen.js';
import type { Scope } from '../../generated/native/types.gen.js';
import { check, dataOf } from '../check.js';
import { PASSWORD, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const scopes: Scope[] = ['articles:read', 'media:write'];
  const body = { name: 'Deployment', scopes, password: PASSWORD };
  const { data: created } = await createApiKey({ body, throwOnError: true });
  check(created.key.startsWith(created.hint), 'the key is shown once');
  const [first] = dataOf(await api.GET('/users/me/api-keys'));
  check(first?.id === created.id && first.expires_at === null, 'the key is listed');
  await deleteApiKey({ path: { api_key_id: created.id }, throwOnError: true });
}
