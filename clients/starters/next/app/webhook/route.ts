import { revalidatePath } from 'next/cache';
import { Webhook } from 'standardwebhooks';

interface Event {
  type: string;
  timestamp: string;
  data: { article?: { slug: string } };
}

/** Receive the webhooks of Pressroom: render the list and the article again when they are next requested. */
export async function POST(request: Request) {
  const webhook = new Webhook(process.env.PRESSROOM_WEBHOOK_SECRET!);
  let event: Event;
  try {
    // It refuses a wrong signature, and a delivery that is older than five minutes.
    event = webhook.verify(await request.text(), Object.fromEntries(request.headers)) as Event;
  } catch {
    return new Response('Invalid signature', { status: 401 });
  }
  if (event.data.article) {
    revalidatePath('/');
    revalidatePath(`/${event.data.article.slug}`);
  }
  return new Response(null, { status: 204 });
}
