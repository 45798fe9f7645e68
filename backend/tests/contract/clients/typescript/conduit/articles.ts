import { deleteArticle, listArticles, readFeed, updateArticle } from '../../generated/conduit/sdk.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api, user }: Session): Promise<void> {
  const { slug } = await publish('On engines', ['Engines']);
  const path = { slug };
  const { data: changed } = await updateArticle({ path, body: { article: { body: 'Another text.' } }, throwOnError: true });
  check(changed.article.body === 'Another text.', 'the text changes');
  const { data: list } = await listArticles({ query: { author: user.username, limit: 5 }, throwOnError: true });
  check(list.articlesCount === 1 && list.articles[0]?.author.username === user.username, 'the article is listed');
  const { data: feed } = await readFeed({ throwOnError: true });
  check(feed.articles.length === 0, 'nobody is followed');
  const { article } = dataOf(await api.GET('/articles/{slug}', { params: { path } }));
  check(article.tagList.join() === 'Engines', 'the article is read');
  await deleteArticle({ path, throwOnError: true });
}
