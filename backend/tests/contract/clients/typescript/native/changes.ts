import { listChanges } from '../../generated/native/sdk.gen.js';
import type { ChangeKind } from '../../generated/native/types.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const latest = dataOf(await api.GET('/changes', { params: { query: { cursor: 'latest' } } }));
  const { id } = await publish('A change');
  const { data: page } = await listChanges({ query: { cursor: latest.next }, throwOnError: true });
  const kinds: ChangeKind[] = page.changes.filter((each) => each.article_id === id).map(({ kind }) => kind);
  check(kinds.join() === 'created', 'the change is listed');
  const { error } = await listChanges({ query: { cursor: 'x' } });
  check(error?.code === 'invalid_cursor', 'the cursor is invalid');
}
