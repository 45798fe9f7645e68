import { createPreviewLink, readPreview } from '../../generated/native/sdk.gen.js';
import type { PreviewLinkCreate } from '../../generated/native/types.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const path = { article_id: (await publish('A preview')).id };
  const body: PreviewLinkCreate = {};
  const { data: link } = await createPreviewLink({ path, body, throwOnError: true });
  const { data: article } = await readPreview({ path: { token: link.token }, throwOnError: true });
  check(article.id === path.article_id, 'the preview is read');
  const links = dataOf(await api.GET('/articles/{article_id}/preview-links', { params: { path } }));
  check(links[0]?.created_by?.id === article.author.id, 'the link is listed');
}
