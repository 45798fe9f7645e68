import { deleteArticle, restoreArticle } from '../../generated/native/sdk.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const path = { article_id: (await publish('A mistake')).id };
  await deleteArticle({ path, throwOnError: true });
  const [deleted] = dataOf(await api.GET('/trash', { params: { query: { limit: 1 } } }));
  check(deleted?.id === path.article_id && deleted.purged_at > deleted.deleted_at, 'the article is in the trash');
  const { data: restored } = await restoreArticle({ path, throwOnError: true });
  check(restored.title === 'A mistake', 'the article is restored');
}
