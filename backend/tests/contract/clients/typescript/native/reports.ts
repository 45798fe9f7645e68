import { listReports, reportArticle } from '../../generated/native/sdk.gen.js';
import type { ReportState } from '../../generated/native/types.gen.js';
import { check } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api, user }: Session): Promise<void> {
  const path = { article_id: (await publish('Advertising')).id };
  const { data: receipt } = await reportArticle({ path, body: { reason: 'Advertising' }, throwOnError: true });
  const state: ReportState = receipt.state;
  check(state === 'open', 'the report is open');
  const again = await api.POST('/articles/{article_id}/reports', { params: { path }, body: { reason: 'Again' } });
  check(again.error?.code === 'already_reported', `${user.username} has reported it`);
  const { error } = await listReports({ query: { state } });
  check(error?.code === 'not_authorized', 'reports are for editors');
}
