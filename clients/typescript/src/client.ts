/** The client: the methods of all operations, and what makes them convenient. */
import { operationTable, type Operations } from './operations.js';
import type { ArticlePart, ChangeResponse, ListedArticle, MediaResponse, Tokens } from './schema.js';
import { Session, memoryStore, type StoredTokens, type TokenStore } from './session.js';
import { follow, type StreamData, type StreamEvent, type StreamInput } from './stream.js';
import { Rates, delay, fetchWithProgress, sendRepeatedly, type Fetch, type RetryOptions } from './transport.js';
import type { Input, OperationInfo, Page, RequestOptions } from './types.js';

export interface ClientOptions {
  /** The address of the API, for example `https://blog.example.com`. */
  baseUrl: string;
  /** An API key. Without it, `login` begins a session. */
  apiKey?: string;
  /** `cookie`: the refresh token is an HttpOnly cookie, for pages. `body`: it is in the store. */
  refreshToken?: 'cookie' | 'body';
  /** Where tokens are kept; by default in memory. */
  store?: TokenStore;
  /** Is called after a login, a refresh and the end of the session, also in another tab. */
  onSession?: (tokens: StoredTokens | null) => void;
  retry?: RetryOptions;
  fetch?: typeof fetch;
}

const LOGINS = new Set(['login', 'log_in_with_second_factor']);
const LOGOUTS = new Set(['log_out', 'log_out_everywhere']);
const PAGE_SIZE = 100;

type ListName = {
  [Name in keyof Operations]: Operations[Name] extends (...args: never) => Promise<Page<unknown>> ? Name : never;
}[keyof Operations];
type InputOf<Name extends ListName> = NonNullable<Parameters<Operations[Name]>[0]>;
type ItemOf<Name extends ListName, Given> = Name extends 'listArticles' | 'readFeed'
  ? Given extends { fields: string } ? ArticlePart : ListedArticle
  : Operations[Name] extends (...args: never) => Promise<Page<infer Item>> ? Item : never;

/** A list with all default fields, or with the fields that are requested. */
interface ListArticles<Id extends 'list_articles' | 'read_feed'> {
  (input?: Omit<Input<Id>, 'fields'>, options?: RequestOptions): Promise<Page<ListedArticle>>;
  (input: Input<Id> & { fields: string }, options?: RequestOptions): Promise<Page<ArticlePart>>;
}

/** All operations of the API as methods, and the methods of `Core`. */
export type Pressroom = Omit<Operations, 'listArticles' | 'readFeed' | 'uploadMedia'> & Core & {
  listArticles: ListArticles<'list_articles'>;
  readFeed: ListArticles<'read_feed'>;
  /** Upload an image. `onProgress` gets how much has been sent, from 0 to 1. */
  uploadMedia(
    input: { file: Blob; alt?: string; name?: string },
    options?: RequestOptions & { onProgress?: (fraction: number) => void },
  ): Promise<MediaResponse>;
};

/** Create a client. */
export function createClient(options: ClientOptions): Pressroom {
  const core = new Core(options);
  const methods = Object.entries(operationTable).map(([name, operation]) => [
    name,
    (input?: Record<string, unknown>, request?: RequestOptions) => core.call(operation, input, request),
  ]);
  return Object.assign(core, Object.fromEntries(methods), { uploadMedia: core.upload }) as Pressroom;
}

const responses = new WeakMap<object, Response>();

/** Return the ETag of what a method returned, for `ifMatch`, or null if it has none. */
export function etagOf(value: object): string | null {
  return responses.get(value)?.headers.get('ETag') ?? null;
}

/** Return the response of what a method returned. Its body has been read. */
export function responseOf(value: object): Response | undefined {
  return responses.get(value);
}

export class Core {
  readonly session: Session;
  readonly #options: ClientOptions;
  readonly #baseUrl: string;
  readonly #rates = new Rates();

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#baseUrl = options.baseUrl.replace(/\/+$/, '');
    const usesCookie = options.refreshToken === 'cookie';
    this.session = new Session(
      `pressroom:${this.#baseUrl}`, options.store ?? memoryStore(), usesCookie,
      (token) => this.#requestTokens(token), options.onSession ?? (() => undefined),
    );
  }

  /** Return whether a session exists, after asking the server if the refresh token is a cookie. */
  async restore(): Promise<boolean> {
    const tokens = this.session.store.get();
    return tokens !== null || (await this.session.refresh(null)) !== null;
  }

  /** Yield the items of all pages of a list: `each('listArticles', { tag: ['Engines'] })`. */
  async *each<Name extends ListName, Given extends InputOf<Name> = InputOf<Name>>(
    name: Name, input?: Given, options?: RequestOptions,
  ): AsyncGenerator<ItemOf<Name, Given>, void, undefined> {
    const operation: OperationInfo = operationTable[name];
    const parameters: Record<string, unknown> = { limit: PAGE_SIZE, ...input };
    for (;;) {
      const page = (await this.call(operation, parameters, options)) as Page<ItemOf<Name, Given>>;
      yield* page;
      if (operation.pages === 'skip') {
        if (page.length < Number(parameters['limit'])) return;
        parameters['skip'] = Number(parameters['skip'] ?? 0) + page.length;
      } else {
        if (page.next === null) return;
        parameters['cursor'] = page.next;
        delete parameters['skip'];
      }
    }
  }

  /**
   * Yield the changes of published articles after `cursor`, or all.
   *
   * With `poll`, in seconds, it continues with new changes until `signal` is aborted. Store the `cursor` of a change
   * after handling it. A cursor that the server does not know throws `invalid_cursor`: start without one.
   */
  async *changes(
    { cursor, poll, signal }: { cursor?: string; poll?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<ChangeResponse, void, undefined> {
    const list = operationTable.listChanges;
    for (;;) {
      const input = { limit: PAGE_SIZE, cursor };
      const page = (await this.call(list, input, { signal })) as { changes: ChangeResponse[]; next: string };
      yield* page.changes;
      cursor = page.next;
      if (page.changes.length === PAGE_SIZE) continue;
      if (poll === undefined) return;
      await delay(poll * 1000, signal);
    }
  }

  /**
   * Yield what happens from now on, or after `cursor`, until `signal` is aborted: changes of articles, of users whom you
   * follow (`topic: 'feed'`), of `comments`, or of your queue (`moderation`).
   *
   * After an interruption, it continues without a gap. Store the `cursor` of an event after handling it.
   */
  stream<Given extends StreamInput = StreamInput>(
    { cursor, ...query }: Given = {} as Given, { signal }: { signal?: AbortSignal } = {},
  ): AsyncGenerator<StreamEvent<StreamData<Given>>, void, undefined> {
    const { streamChanges } = operationTable;
    return follow(
      (last, stop) => this.call(streamChanges, { ...query, cursor: last }, { signal: stop }) as Promise<Response>,
      cursor, signal,
    );
  }

  /** Send the request of an operation. The methods of the operations call it. */
  async call(
    operation: OperationInfo, input: Record<string, unknown> = {}, options: RequestOptions = {}, send?: Fetch,
  ): Promise<unknown> {
    const { body, ...parameters } = input;
    const headers = new Headers(options.headers);
    if (!operation.raw && !headers.has('Accept')) headers.set('Accept', 'application/json');
    if (options.ifMatch) headers.set('If-Match', options.ifMatch);
    const key = operation.key && (options.idempotencyKey ?? newKey());
    if (key) headers.set('Idempotency-Key', key);
    const init: RequestInit = { method: operation.method, headers, signal: options.signal ?? null };
    if (isRaw(body)) {
      init.body = body as BodyInit;
      if (options.contentType) headers.set('Content-Type', options.contentType);
    } else if (body !== undefined) {
      init.body = JSON.stringify(body);
      headers.set('Content-Type', 'application/json');
    }
    if (this.#usesCookie && LOGINS.has(operation.id)) parameters['cookie'] = true;
    const repeatable = key !== undefined || !['POST', 'PATCH'].includes(operation.method);
    await this.#rates.wait(operation.id, this.#options.retry ?? {}, options.signal);
    const response = await this.#exchange(
      this.#url(operation.path, parameters), init, repeatable, !LOGINS.has(operation.id), send,
    );
    this.#rates.note(operation.id, response.headers);
    if (LOGOUTS.has(operation.id)) this.session.end();
    const value = await valueOf(response, operation);
    if (LOGINS.has(operation.id)) this.session.begin(value as Tokens);
    if (typeof value === 'object' && value !== null) responses.set(value, response);
    return value;
  }

  /** See `Pressroom.uploadMedia`. */
  readonly upload = async (
    { file, alt, name }: { file: Blob; alt?: string; name?: string },
    { onProgress, ...options }: RequestOptions & { onProgress?: (fraction: number) => void } = {},
  ): Promise<MediaResponse> => {
    const form = new FormData();
    form.set('file', file, name ?? (file instanceof File ? file.name : 'image'));
    if (alt !== undefined) form.set('alt', alt);
    const send = onProgress && fetchWithProgress(this.#fetch, onProgress);
    return (await this.call(operationTable.uploadMedia, { body: form }, options, send)) as MediaResponse;
  };

  /** Stop listening to other tabs. */
  close(): void {
    this.session.close();
  }

  get #usesCookie(): boolean {
    return this.#options.refreshToken === 'cookie';
  }

  get #fetch(): Fetch {
    return this.#options.fetch ?? ((url, init) => fetch(url, init));
  }

  #url(path: string, parameters: Record<string, unknown>): string {
    const query = new URLSearchParams();
    const rest = { ...parameters };
    const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => {
      delete rest[name];
      return encodeURIComponent(String(parameters[name]));
    });
    for (const [name, value] of Object.entries(rest)) {
      for (const each of Array.isArray(value) ? value : [value]) {
        if (each !== undefined && each !== null) query.append(name, String(each));
      }
    }
    return `${this.#baseUrl}${filled}${query.size ? `?${query}` : ''}`;
  }

  async #exchange(
    url: string, init: RequestInit, repeatable: boolean, authenticated: boolean, send: Fetch = this.#fetch,
  ): Promise<Response> {
    const { apiKey, retry = {} } = this.#options;
    return sendRepeatedly(
      {
        prepare: async () => (authenticated ? (apiKey ?? (await this.session.token())) : null),
        send: (token) => {
          const headers = new Headers(init.headers);
          if (token) headers.set('Authorization', `Bearer ${token}`);
          return send(url, { ...init, headers, credentials: this.#usesCookie ? 'include' : 'same-origin' });
        },
        recover: async ({ code }, token) => {
          const isOld = ['token_expired', 'token_revoked', 'invalid_token'].includes(code);
          return isOld && !apiKey && token !== null && (await this.session.refresh(token)) !== null;
        },
      },
      repeatable && !(init.body instanceof ReadableStream), retry, init.signal ?? undefined,
    );
  }

  async #requestTokens(refreshToken: string | null): Promise<Tokens> {
    const init: RequestInit = { method: 'POST' };
    if (refreshToken !== null) {
      init.body = JSON.stringify({ refresh_token: refreshToken });
      init.headers = { 'Content-Type': 'application/json' };
    }
    // Repeatable: for some seconds, the server returns the same successor again.
    return (await (await this.#exchange(this.#url('/auth/refresh', {}), init, true, false)).json()) as Tokens;
  }
}

/** Return a random key. Browsers have `randomUUID` on HTTPS and localhost only. */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function isRaw(body: unknown): boolean {
  return typeof body === 'string' || body instanceof Blob || body instanceof FormData
    || body instanceof ReadableStream || body instanceof Uint8Array;
}

async function valueOf(response: Response, operation: OperationInfo): Promise<unknown> {
  if (operation.raw) return response;
  if (response.status === 204) return undefined;
  const value: unknown = await response.json();
  if (!Array.isArray(value)) return value;
  const total = response.headers.get('X-Total-Count');
  return Object.defineProperties(value, {
    next: { value: nextCursor(response.headers.get('Link')) },
    total: { value: total === null ? null : Number(total) },
  });
}

/** Return the cursor of the next page of a Link header (RFC 8288), or null on the last page. */
function nextCursor(link: string | null): string | null {
  const address = link?.match(/<([^>]*)>;\s*rel="next"/)?.[1];
  return address ? new URL(address, 'http://localhost').searchParams.get('cursor') : null;
}
