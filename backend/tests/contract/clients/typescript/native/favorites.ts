import { favorite, listFavorites, unfavorite } from '../../generated/native/sdk.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api, user }: Session): Promise<void> {
  const path = { article_id: (await publish('A favorite')).id };
  const { data: added } = await favorite({ path, throwOnError: true });
  check(added.favorited && added.favorites_count === 1, 'the article is a favorite');
  const { data: users } = await listFavorites({ path, query: { limit: 1 }, throwOnError: true });
  check(users[0]?.username === user.username, 'the user is listed');
  const state = dataOf(await api.GET('/articles/{article_id}/favorite', { params: { path } }));
  check(state.favorited, 'the state is read');
  await unfavorite({ path, throwOnError: true });
}
