import { checkReadiness } from '../../generated/native/sdk.gen.js';
import { check, dataOf } from '../check.js';
import type { Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const { data: readiness } = await checkReadiness({ throwOnError: true });
  const { status } = dataOf(await api.GET('/health/live'));
  check(readiness.status === 'ready' && status === 'alive', 'the server is ready');
}
