import type { operations } from '../../generated/native.js';
import { createArticle, listArticles, readArticle, updateArticle } from '../../generated/native/sdk.gen.js';
import type { ArticleCreate, ArticlePart, ListedArticle } from '../../generated/native/types.gen.js';
import { check, dataOf } from '../check.js';
import type { Session } from './session.js';

type Headers = operations['list_articles']['responses'][200]['headers'];

export async function run({ api, user }: Session): Promise<void> {
  const draft: ArticleCreate = { title: 'Notes', content: 'The engine weaves.' }; // defaults are not required
  const { data: created } = await createArticle({ body: draft, throwOnError: true });
  const path = { article_id: created.id };
  const { data: read, response } = await readArticle({ path, throwOnError: true });
  const etag = response.headers.get('ETag');
  check(read.status === 'draft' && etag !== null, 'the article is a draft');
  const { data: changed } = await updateArticle({
    path, body: { published: true, tags: ['Engines'] }, headers: { 'If-Match': etag }, throwOnError: true,
  });
  check(changed.tags.join() === 'Engines', 'the tags change');

  const stale = await api.PATCH('/articles/{article_id}', {
    params: { path, header: { 'If-Match': etag } }, body: { title: 'Other notes' },
  });
  check(stale.error?.code === 'precondition_failed', 'the article has changed');
  const missing = await readArticle({ path: { article_id: 2 ** 40 } });
  check(missing.error?.code === 'article_not_found', 'the article does not exist');

  const query = { author: user.username, count: true };
  const list = await listArticles({ query, throwOnError: true });
  const [listed] = list.data as ListedArticle[];
  check(listed?.title.toLowerCase() === 'notes', 'the default fields are present');
  const total: Headers['X-Total-Count'] = Number(list.response.headers.get('X-Total-Count'));
  const link: Headers['Link'] = list.response.headers.get('Link') ?? undefined;
  check(total === 1 && link !== undefined, 'the list has a total and links');
  const parts = dataOf(await api.GET('/articles', { params: { query: { ...query, fields: 'title,html' } } }));
  const [part] = parts as ArticlePart[];
  check(part?.id === undefined && part?.html !== undefined, 'only the requested fields are present');
}
