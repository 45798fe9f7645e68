import { check } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const { slug, title } = await publish('For agents');
  const { data: index } = await api.GET('/llms.txt', { parseAs: 'text' });
  check(index !== undefined && index.includes(`[${title}]`), 'the article is in the index');
  const path = { slug };
  const { data: document } = await api.GET('/articles/{slug}.md', { params: { path }, parseAs: 'text' });
  check(document !== undefined && document.startsWith(`---\ntitle: ${title}\n`), 'it is Markdown');
}
