import { listTags } from '../../generated/conduit/sdk.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const { tagList } = await publish('With a tag', ['Mills']);
  const { data } = await listTags({ throwOnError: true });
  const { tags } = dataOf(await api.GET('/tags'));
  check(tagList.every((tag) => tags.includes(tag)) && data.tags.length > 0, 'the tag is listed');
}
