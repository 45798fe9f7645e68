import { follow, listFollowing, readFeed } from '../../generated/native/sdk.gen.js';
import type { ListedArticle } from '../../generated/native/types.gen.js';
import { check, dataOf } from '../check.js';
import type { Session } from './session.js';

export async function run({ api, user }: Session): Promise<void> {
  const params = { path: { username: user.username } };
  const profile = dataOf(await api.GET('/profiles/{username}', { params }));
  check(profile.image_url === null && !profile.following, 'the profile is read');
  const { error } = await follow(params);
  check(error?.code === 'validation_error', 'users cannot follow themselves');
  const { data: followed } = await listFollowing({ ...params, throwOnError: true });
  const { data: feed } = await readFeed({ query: { limit: 5 }, throwOnError: true });
  const titles = (feed as ListedArticle[]).map(({ title }) => title.trim());
  check(followed.length + titles.length === 0, 'nobody is followed');
}
