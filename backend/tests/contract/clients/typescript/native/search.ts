import { suggestTitles } from '../../generated/native/sdk.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const { id } = await publish('A differential analyser');
  const found = dataOf(await api.GET('/search', { params: { query: { q: 'differential' } } }));
  const result = found.find((each) => each.id === id);
  check(result !== undefined && result.title_snippet.includes('<mark>'), 'the article is found');
  const { data: suggestions } = await suggestTitles({ query: { q: 'different' }, throwOnError: true });
  check(suggestions.some((each) => each.slug === result.slug), 'the title is suggested');
}
