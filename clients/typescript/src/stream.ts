/** Streams of changes (Server-Sent Events), and how they continue after an interruption. */
import type { ChangeResponse, CommentResponse } from './schema.js';
import { PressroomError } from './errors.js';
import { delay } from './transport.js';
import type { Input } from './types.js';

/** What happened to a comment. Without `comment`, remove it. */
export interface CommentEvent {
  /** The same event has the same id if it is sent again. */
  event_id: number;
  kind: 'created' | 'held' | 'deleted';
  article_id: number;
  comment_id: number;
  thread_id: number;
  occurred_at: string;
  comment: CommentResponse | null;
}

/** An event, and the cursor after which a later stream continues. */
export interface StreamEvent<Data> {
  readonly cursor: string;
  readonly data: Data;
}

export type StreamInput = Input<'stream_changes'>;
export type StreamData<Given> = Given extends { topic: 'comments' | 'moderation' } ? CommentEvent : ChangeResponse;

const SILENCE_MS = 45_000;
const MAX_PAUSE_MS = 60_000;
const FINAL = (error: unknown): boolean =>
  error instanceof PressroomError && error.status < 500 && error.status !== 429;

/**
 * Yield the events of a stream. `open` starts it after a cursor.
 *
 * It is opened again after the pause that the server asks for when it ends, or is silent for 45 seconds. Later attempts
 * wait longer, up to a minute. Errors before the first response, and refusals later, are thrown.
 */
export async function* follow<Data>(
  open: (cursor: string | undefined, signal: AbortSignal) => Promise<Response>,
  cursor: string | undefined, signal: AbortSignal | undefined,
): AsyncGenerator<StreamEvent<Data>, void, undefined> {
  let retry = 5000;
  let failures = 0;
  for (let connected = false; ; ) {
    const attempt = new AbortController();
    const stopped = signal ? AbortSignal.any([signal, attempt.signal]) : attempt.signal;
    const end = (): void => attempt.abort(new Error('The stream is silent'));
    let silence: ReturnType<typeof setTimeout> | undefined;
    try {
      const response = await open(cursor, stopped);
      connected = true;
      for await (const event of eventsOf(response.body!, () => {
        clearTimeout(silence);
        silence = setTimeout(end, SILENCE_MS);
      })) {
        failures = 0;
        retry = event.retry ?? retry;
        cursor = event.id ?? cursor;
        if (event.data && event.name !== 'closing') yield { cursor: cursor ?? '', data: JSON.parse(event.data) as Data };
      }
    } catch (error) {
      if (signal?.aborted || !connected || FINAL(error)) throw error;
    } finally {
      clearTimeout(silence);
      attempt.abort();
    }
    await delay(Math.min(MAX_PAUSE_MS, retry * 2 ** failures++), signal); // `retry` differs for each client
  }
}

interface ServerEvent {
  name?: string;
  id?: string;
  data?: string;
  retry?: number;
}

/** Parse Server-Sent Events, also those without data. Call `received` for each chunk. */
async function* eventsOf(body: ReadableStream<Uint8Array>, received: () => void): AsyncGenerator<ServerEvent> {
  const reader = body.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader();
  let rest = '';
  let event: ServerEvent = {};
  for (;;) {
    received();
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const [, name, value = ''] = /^(\w+)(?:: ?(.*))?$/.exec(line) ?? [];
      if (line === '') {
        yield event;
        event = {};
      } else if (name === 'event') event.name = value;
      else if (name === 'id') event.id = value;
      else if (name === 'data') event.data = event.data === undefined ? value : `${event.data}\n${value}`;
      else if (name === 'retry' && /^\d+$/.test(value)) event.retry = Number(value);
    }
  }
}
