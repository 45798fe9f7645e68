import { favorite } from '../../generated/conduit/sdk.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const path = { slug: (await publish('A favorite')).slug };
  const { data } = await favorite({ path, throwOnError: true });
  check(data.article.favorited, 'the article is a favorite');
  const { article } = dataOf(await api.DELETE('/articles/{slug}/favorite', { params: { path } }));
  check(article.favoritesCount === 0, 'the article is no favorite');
}
