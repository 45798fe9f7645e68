import type { operations } from '../../generated/native.js';
import { changeTag, listTags } from '../../generated/native/sdk.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export type MergedInto = operations['change_tag']['responses'][200]['headers']['X-Merged-Into'];

export async function run({ api }: Session): Promise<void> {
  await publish('On looms', ['Jacquard looms']);
  const { data: tags } = await listTags({ query: { q: 'jacq', sort: 'count' }, throwOnError: true });
  const slug = tags[0]?.slug ?? '';
  const tag = dataOf(await api.GET('/tags/{slug}', { params: { path: { slug } } }));
  check(tag.article_count >= 1, 'the tag has an article');
  const { error } = await changeTag({ path: { slug }, body: { name: 'Looms' } });
  check(error?.code === 'not_authorized', 'changing a tag requires an editor');
}
