import { createWebhook, deleteWebhook, sendTest, updateWebhook } from '../../generated/native/sdk.gen.js';
import { check, dataOf } from '../check.js';
import type { Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const { data: created } = await createWebhook({
    body: { url: 'https://example.com/hook', events: ['article.published'] },
    throwOnError: true,
  });
  check(created.secret.startsWith('whsec_'), 'the secret is shown once');
  const path = { webhook_id: created.id };
  const { data: changed } = await updateWebhook({ path, body: { is_active: false }, throwOnError: true });
  check(!changed.is_active, 'it is disabled');
  const { data: sent } = await sendTest({ path, throwOnError: true });
  const [delivery] = dataOf(await api.GET('/webhooks/{webhook_id}/deliveries', { params: { path } }));
  check(delivery?.message_id === sent.message_id && delivery.state === 'pending', 'the test is queued');
  await deleteWebhook({ path, throwOnError: true });
}
