import { readJsonFeed } from '../../generated/native/sdk.gen.js';
import { check } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const { title } = await publish('In the feeds');
  const { data: feed } = await readJsonFeed({ throwOnError: true });
  check(feed.items.some((item) => item.title === title), 'the article is in the feed');
  const { data: xml } = await api.GET('/feed.xml', { parseAs: 'text' });
  check(xml !== undefined && xml.includes(title), 'the article is in the RSS feed');
}
