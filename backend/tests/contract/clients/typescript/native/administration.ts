import { listJobs } from '../../generated/native/sdk.gen.js';
import { check } from '../check.js';
import type { Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const { error } = await listJobs();
  check(error?.code === 'not_authorized', 'jobs are for administrators');
  const health = await api.GET('/admin/health');
  check(health.error?.code === 'not_authorized', 'the health of the server is for administrators');
}
