import { check, dataOf } from '../check.js';
import type { Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const record = { title: 'Imported', content: 'From another system.' };
  const body = `${JSON.stringify(record)}\n{}\n`;
  // With openapi-fetch: hey-api's function sends JSON if an operation accepts it.
  const headers = { 'Content-Type': 'application/x-ndjson' };
  const sent = await api.POST('/articles/import', { body, bodySerializer: () => body, headers });
  const report = dataOf(sent);
  check(report.created === 1 && report.errors[0]?.line === 2, 'one of two records is imported');
  const exported: string = dataOf(await api.GET('/articles/export', { parseAs: 'text' }));
  check(exported.includes('"Imported"'), 'the record is exported');
}
