import { diffRevision, listRevisions, updateArticle } from '../../generated/native/sdk.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const { id: article_id } = await publish('First title');
  await updateArticle({ path: { article_id }, body: { title: 'Second title' }, throwOnError: true });
  const { data: revisions } = await listRevisions({ path: { article_id }, throwOnError: true });
  const path = { article_id, revision_id: revisions[0]?.id ?? 0 };
  const revision = dataOf(
    await api.GET('/articles/{article_id}/revisions/{revision_id}', { params: { path } }),
  );
  check(revision.title === 'First title' && revision.content.length > 0, 'the revision is read');
  const { data: difference } = await diffRevision({ path, throwOnError: true });
  check(difference.against === 'current' && difference.diff.includes('Second'), 'the texts differ');
}
