/** Sending requests, with retries. */
import { PressroomError } from './errors.js';

/** Like `fetch`, with a string as the address. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export interface RetryOptions {
  /** How often a request is sent at most; by default 4. */
  attempts?: number;
  /** The longest pause in milliseconds; by default 20,000. A longer `Retry-After` is an error at once. */
  maxPause?: number;
}

const DEFAULT_MAX_PAUSE_MS = 20_000;
const FIRST_PAUSE_MS = 250;
const REPEATABLE = new Set([502, 503, 504]);

/** What `sendRepeatedly` does in an attempt. */
interface Attempt<Prepared> {
  /** Is called before each attempt. Its errors are final. */
  prepare: () => Promise<Prepared>;
  send: (prepared: Prepared) => Promise<Response>;
  /** Correct the cause of an error, for example an old token. Is called until it returns true once. */
  recover: (error: PressroomError, prepared: Prepared) => Promise<boolean>;
}

/**
 * Send until the response is successful, and return it. Throws the PressroomError of the last response.
 *
 * A limit is waited for. Failures are repeated only if `repeatable`: then a request that was carried out, but whose
 * response was lost, changes nothing more.
 */
export async function sendRepeatedly<Prepared>(
  { prepare, send, recover }: Attempt<Prepared>, repeatable: boolean,
  { attempts = 4, maxPause = DEFAULT_MAX_PAUSE_MS }: RetryOptions, signal?: AbortSignal,
): Promise<Response> {
  let recovered = false;
  for (let attempt = 1; ; attempt++) {
    let pause = Math.min(maxPause, FIRST_PAUSE_MS * 2 ** (attempt - 1)) * (0.5 + Math.random() / 2);
    const prepared = await prepare();
    try {
      const response = await send(prepared);
      if (response.ok) return response;
      throw await PressroomError.from(response);
    } catch (error) {
      if (signal?.aborted) throw error;
      if (error instanceof PressroomError) {
        if (!recovered && (await recover(error, prepared))) {
          recovered = true;
          continue;
        }
        pause = error.retryAfter === null ? pause : Math.max(pause, error.retryAfter * 1000);
        const passes = error.status === 429
          || (repeatable && (REPEATABLE.has(error.status) || error.code === 'request_in_progress'));
        if (!passes || pause > maxPause) throw error;
      } else if (!repeatable) throw error; // fetch itself failed: the request may have been carried out
      if (attempt >= attempts) throw error;
    }
    await delay(pause, signal);
  }
}

/** The rate limits that responses have reported, by operation: a request waits rather than getting 429. */
export class Rates {
  readonly #policies = new Map<string, Set<string>>();
  readonly #until = new Map<string, number>();

  /** Note the fields of a response (draft-ietf-httpapi-ratelimit-headers). */
  note(operation: string, headers: Headers): void {
    for (const [, policy = '', left, seconds] of (headers.get('RateLimit') ?? '').matchAll(/"([^"]+)";r=(\d+);t=(\d+)/g)) {
      this.#policies.set(operation, (this.#policies.get(operation) ?? new Set()).add(policy));
      this.#until.set(policy, left === '0' ? Date.now() + Number(seconds) * 1000 : 0);
    }
  }

  /** Wait until the limits of an operation allow a request, unless this takes longer than `maxPause`. */
  async wait(operation: string, { maxPause = DEFAULT_MAX_PAUSE_MS }: RetryOptions, signal?: AbortSignal): Promise<void> {
    const moments = [...(this.#policies.get(operation) ?? [])].map((policy) => this.#until.get(policy) ?? 0);
    const pause = Math.max(0, ...moments) - Date.now();
    if (pause > 0 && pause <= maxPause) await delay(pause, signal);
  }
}

/** Wait, or reject when the signal is aborted. */
export function delay(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, milliseconds);
    signal?.addEventListener('abort', abort, { once: true });
  });
}

/** Return a `fetch` that reports how much of the body has been sent, from 0 to 1. */
export function fetchWithProgress(fetch: Fetch, onProgress: (fraction: number) => void): Fetch {
  return async (url, init) => {
    // The form is encoded once, so that its size is known.
    const form = new Response(init.body ?? null);
    const type = form.headers.get('Content-Type');
    const body = await form.blob();
    const headers = new Headers(init.headers);
    if (type) headers.set('Content-Type', type);
    onProgress(0);
    const encoded = { ...init, headers, body };
    // Browsers report the progress of XMLHttpRequest only. Others can send a stream.
    return typeof XMLHttpRequest === 'undefined'
      ? fetch(url, { ...encoded, body: counted(body, onProgress), duplex: 'half' } as RequestInit)
      : sendByXhr(url, encoded, onProgress);
  };
}

function counted(body: Blob, onProgress: (fraction: number) => void): ReadableStream<Uint8Array> {
  let sent = 0;
  return body.stream().pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        sent += chunk.length;
        onProgress(sent / body.size);
        controller.enqueue(chunk);
      },
    }),
  );
}

function sendByXhr(
  url: string, init: RequestInit & { headers: Headers; body: Blob }, onProgress: (fraction: number) => void,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    init.signal?.throwIfAborted();
    const request = new XMLHttpRequest();
    request.open(init.method ?? 'POST', url);
    request.withCredentials = init.credentials === 'include';
    init.headers.forEach((value, name) => request.setRequestHeader(name, value));
    request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    request.onload = () => {
      const headers = request.getAllResponseHeaders().trim().split(/\r\n/).map((line): [string, string] => {
        const [name = '', ...value] = line.split(':');
        return [name, value.join(':').trim()];
      });
      resolve(new Response(request.responseText, { status: request.status, headers }));
    };
    request.onerror = () => reject(new TypeError('The upload failed'));
    request.onabort = () => reject(init.signal?.reason as Error);
    init.signal?.addEventListener('abort', () => request.abort(), { once: true });
    request.send(init.body);
  });
}
