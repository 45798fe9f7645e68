/** Login sessions: where tokens are kept, and how they are refreshed once for all tabs. */
import { isError } from './errors.js';
import type { Tokens } from './schema.js';

/** Tokens, and when the access token expires (milliseconds since 1970, by the client's clock). */
export interface StoredTokens {
  access_token: string;
  /** Null if the refresh token is a cookie. */
  refresh_token: string | null;
  expires_at: number;
}

/** Where tokens are kept between requests. */
export interface TokenStore {
  get(): StoredTokens | null;
  set(tokens: StoredTokens | null): void;
}

/** Keep tokens in memory, for programs and for refresh tokens in cookies. */
export function memoryStore(tokens: StoredTokens | null = null): TokenStore {
  return {
    get: () => tokens,
    set: (next) => {
      tokens = next;
    },
  };
}

/** Keep tokens in `localStorage`. Every script of the page can read them; prefer the cookie. */
export function localStorageStore(key = 'pressroom.tokens'): TokenStore {
  return {
    get: () => JSON.parse(localStorage.getItem(key) ?? 'null') as StoredTokens | null,
    set: (tokens) => (tokens ? localStorage.setItem(key, JSON.stringify(tokens)) : localStorage.removeItem(key)),
  };
}

/** An access token this close to its end is refreshed before the request. */
const EARLY_MS = 10_000;
/** How long a tab waits for the tokens of another one, which are on their way. */
const MESSAGE_MS = 1_000;

export class Session {
  #channel: BroadcastChannel | undefined;
  #pending: Promise<StoredTokens | null> | undefined;
  #changed: () => void = () => undefined;

  /**
   * @param name Clients with the same name share a session across tabs.
   * @param requestTokens Exchanges the refresh token (null: the cookie) for the next tokens.
   * @param onChange Is called after a login, a refresh and the end of the session, also in another tab.
   */
  constructor(
    readonly name: string,
    readonly store: TokenStore,
    readonly usesCookie: boolean,
    readonly requestTokens: (refreshToken: string | null) => Promise<Tokens>,
    readonly onChange: (tokens: StoredTokens | null) => void,
  ) {
    // Only tabs share a session. In Node.js, the channel would keep the process alive.
    if (typeof BroadcastChannel !== 'undefined' && typeof document !== 'undefined') {
      this.#channel = new BroadcastChannel(name);
      this.#channel.onmessage = ({ data }) => this.#apply(data as StoredTokens | null);
    }
  }

  /** Return a valid access token, refreshed if it expires soon, or null without a session. */
  async token(): Promise<string | null> {
    let tokens = this.store.get();
    if (tokens && tokens.expires_at - Date.now() < EARLY_MS) tokens = await this.refresh(tokens.access_token);
    return tokens?.access_token ?? null;
  }

  /** Store the tokens of a login or a refresh, and tell the other tabs. */
  begin(tokens: Tokens): StoredTokens {
    const { access_token, refresh_token, expires_in } = tokens;
    const stored = { access_token, refresh_token, expires_at: Date.now() + expires_in * 1000 };
    this.#apply(stored);
    this.#channel?.postMessage(stored);
    return stored;
  }

  /** Forget the tokens, and tell the other tabs. */
  end(): void {
    this.#apply(null);
    this.#channel?.postMessage(null);
  }

  /**
   * Replace the access token `stale`. One request at a time refreshes, in all tabs. All others get its result.
   *
   * Returns null if there is no session, or it has ended.
   */
  refresh(stale: string | null): Promise<StoredTokens | null> {
    this.#pending ??= this.#exclusively(stale).finally(() => {
      this.#pending = undefined;
    });
    return this.#pending;
  }

  close(): void {
    this.#channel?.close();
  }

  async #refresh(stale: string | null): Promise<StoredTokens | null> {
    const current = this.store.get();
    if (current && current.access_token !== stale) return current; // another tab was first
    if (!current?.refresh_token && !this.usesCookie) return null;
    try {
      return this.begin(await this.requestTokens(current?.refresh_token ?? null));
    } catch (error) {
      if (!isError(error, 'invalid_refresh_token')) throw error;
      this.end();
      return null;
    }
  }

  /** Refresh while no other tab does. A tab that had to wait gets the tokens of the one before it. */
  async #exclusively(stale: string | null): Promise<StoredTokens | null> {
    if (typeof navigator === 'undefined' || !navigator.locks) return this.#refresh(stale);
    const first = await navigator.locks.request(this.name, { ifAvailable: true }, async (lock) =>
      lock && { tokens: await this.#refresh(stale) });
    if (first) return first.tokens;
    return navigator.locks.request(this.name, async () => {
      if ((this.store.get()?.access_token ?? null) === stale) await this.#nextChange();
      return this.#refresh(stale);
    });
  }

  /** Wait for the message of another tab. It may arrive after the lock; without one, its refresh failed. */
  #nextChange(): Promise<void> {
    return new Promise((resolve) => {
      this.#changed = resolve;
      setTimeout(resolve, MESSAGE_MS);
    });
  }

  #apply(tokens: StoredTokens | null): void {
    this.store.set(tokens);
    this.#changed();
    this.onChange(tokens);
  }
}
