import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { createClient, etagOf, isError, memoryStore, type ListedArticle, type Pressroom, type UserPrivate } from '../src/index.js';

const baseUrl = process.env['PRESSROOM_URL'] ?? 'http://localhost:8000';
const password = 'correct horse battery';
const retry = { maxPause: 50 };
let user: UserPrivate;
let api: Pressroom;

before(async () => {
  const username = `ts-${crypto.randomUUID().slice(0, 12)}`;
  api = createClient({ baseUrl });
  user = await api.createUser({ body: { email: `${username}@example.com`, username, name: 'Ada', password } });
  await api.login({ body: { username, password } });
});

const publish = (title: string, client = api) =>
  client.createArticle({ body: { title, content: 'The engine weaves.', tags: [user.username], published: true } });

/** A `fetch` that changes how some requests end, and records all of them. */
function flaky(change: (url: string, init: RequestInit, send: () => Promise<Response>) => Promise<Response> | undefined) {
  const requests: { url: string; init: RequestInit }[] = [];
  const send: typeof fetch = (input, init = {}) => {
    const url = String(input);
    requests.push({ url, init });
    return change(url, init, () => fetch(url, init)) ?? fetch(url, init);
  };
  return { requests, fetch: send, to: (path: string) => requests.filter(({ url }) => new URL(url).pathname === path) };
}

test('a session identifies its user', async () => {
  assert.equal((await api.readIdentity()).username, user.username);
});

test('an ETag protects a change', async () => {
  const article = await publish('Notes');
  const etag = etagOf(article);
  assert.ok(etag);
  const changed = await api.updateArticle({ article_id: article.id, body: { title: 'Notes on engines' } }, { ifMatch: etag });
  assert.notEqual(etagOf(changed), etag);
  await assert.rejects(
    api.updateArticle({ article_id: article.id, body: { title: 'Other' } }, { ifMatch: etag }),
    (error) => isError(error, 'precondition_failed') && error.status === 412,
  );
  assert.equal(await api.deleteArticle({ article_id: article.id }), undefined);
});

test('errors have the type of their code', async () => {
  const error: unknown = await api.readArticle({ article_id: 2 ** 40 }).catch((caught: unknown) => caught);
  assert.ok(isError(error, 'article_not_found', 'validation_error'));
  assert.ok(!isError(error, 'comment_not_found'));
  assert.ok(error.requestId);
  const code: 'article_not_found' | 'validation_error' | 'unknown' = error.code;
  assert.equal(code, 'article_not_found');
  const invalid: unknown = await api.createArticle({ body: { title: '', content: 'x' } }).catch((caught: unknown) => caught);
  assert.ok(isError(invalid, 'validation_error') && Array.isArray(invalid.body.detail));
  assert.deepEqual(invalid.body.detail[0]?.loc, ['body', 'title']);
});

test('an error that is not one of the API has an unknown code', async () => {
  const { fetch } = flaky(async () => new Response('<html>', { status: 404 }));
  await assert.rejects(createClient({ baseUrl, fetch }).readIndex(), { status: 404, code: 'unknown' });
});

test('each yields the items of all pages, by cursor and by skip', async () => {
  for (const title of ['One', 'Two', 'Three']) await publish(title);
  const titles: string[] = [];
  for await (const article of api.each('listArticles', { tag: [user.username], limit: 2 })) titles.push(article.title);
  assert.deepEqual(titles, ['Three', 'Two', 'One']);
  const page = await api.listArticles({ tag: [user.username], limit: 2, count: true });
  const [first]: ListedArticle[] = page;
  assert.deepEqual([first?.title, page.length, page.total, typeof page.next], ['Three', 2, 3, 'string']);
  const parts = await api.listArticles({ tag: [user.username], fields: 'slug' });
  assert.deepEqual(parts.map(Object.keys), [['slug'], ['slug'], ['slug']]);
  let sessions = 0;
  await api.login({ body: { username: user.username, password } });
  for await (const { id } of api.each('listSessions', { limit: 1 })) sessions += id ? 1 : 0;
  assert.ok(sessions >= 2);
});

test('changes continue after a cursor', async () => {
  const { next } = (await api.listChanges({ cursor: 'latest' }));
  const article = await publish('A change');
  const changes = [];
  for await (const change of api.changes({ cursor: next })) changes.push(change);
  assert.deepEqual(changes.map(({ kind, article_id }) => [kind, article_id]), [['created', article.id]]);
  for await (const _ of api.changes({ cursor: changes[0]?.cursor })) assert.fail('there are no more changes');
  await assert.rejects(async () => {
    for await (const _ of api.changes({ cursor: 'unknown' }));
  }, (error) => isError(error, 'invalid_cursor'));
});

test('polling for changes ends with its signal', async () => {
  const stop = new AbortController();
  const { next } = await api.listChanges({ cursor: 'latest' });
  const { fetch } = flaky((url, _, send) => {
    if (new URL(url).searchParams.get('cursor') !== next) return undefined;
    return send().finally(() => queueMicrotask(() => stop.abort(new Error('stopped'))));
  });
  await assert.rejects(async () => {
    for await (const _ of createClient({ baseUrl, fetch }).changes({ cursor: next, poll: 3600, signal: stop.signal }));
  });
  assert.ok(stop.signal.aborted);
});

test('a stream has what happens from now on, and continues after a cursor', async () => {
  const { next } = await api.listChanges({ cursor: 'latest' });
  const first = await publish('Streamed');
  let cursor: string | undefined;
  for await (const change of api.stream({ cursor: next })) {
    assert.deepEqual([change.data.kind, change.data.article_id], ['created', first.id]);
    ({ cursor } = change);
    break;
  }
  const second = await publish('Streamed later');
  for await (const { data } of api.stream({ cursor })) {
    assert.equal(data.article_id, second.id);
    break;
  }
});

test('an interrupted stream continues without a gap', async () => {
  const { next } = await api.listChanges({ cursor: 'latest' });
  const article = await publish('After an interruption');
  const interrupted = `: alive\nretry: 1\n\nid: first\r\nevent: change\r\ndata: {"kind":\ndata: "updated"}\n\nid: ${next}\n\n`
    + 'retry: 2\nevent: closing\ndata: {"code": "server_stopping"}\n\nid: incomplete';
  const answers = [
    async () => new Response(interrupted),
    async () => new Response('{"success": false, "code": "streams_full"}', { status: 503 }),
    () => Promise.reject(new TypeError('the connection was lost')),
  ];
  const { fetch, requests } = flaky(() => answers.shift()?.());
  const found = [];
  for await (const change of createClient({ baseUrl, fetch, retry: { attempts: 1 } }).stream()) {
    found.push(change);
    if (found.length === 2) break;
  }
  assert.deepEqual(found[0], { cursor: 'first', data: { kind: 'updated' } });
  assert.equal(found[1]?.data.article_id, article.id);
  assert.deepEqual(requests.map(({ url }) => new URL(url).searchParams.get('cursor')), [null, next, next, next]);
});

test('a stream has the comments that its user may see', async () => {
  const article = await publish('Discussed');
  const input = { topic: 'comments', article_id: article.id } as const;
  const stream = api.stream(input);
  let seen = false;
  const event = stream.next().finally(() => {
    seen = true;
  });
  // The stream starts at some moment meanwhile.
  while (!seen) await api.createComment({ article_id: article.id, body: { content: 'A comment.' } });
  const { value } = await event;
  assert.deepEqual([value?.data.kind, value?.data.comment?.content], ['created', 'A comment.']);
  await stream.return();
});

test('a stream that is refused, or stopped, ends', async () => {
  const anonymous = createClient({ baseUrl });
  await assert.rejects(anonymous.stream({ topic: 'feed' }).next(), (error) => isError(error, 'not_authenticated'));
  await assert.rejects(api.stream({ cursor: 'unknown' }).next(), (error) => isError(error, 'invalid_cursor'));
  const stop = new AbortController();
  const event = api.stream({}, { signal: stop.signal }).next();
  stop.abort(new Error('stopped'));
  await assert.rejects(event, /stopped/);
});

test('a request waits for the limit that an earlier response has reported', async () => {
  const used = () => Response.json({}, { headers: { RateLimit: '"articles";r=0;t=1, "writes";r=7;t=3' } });
  const { fetch, requests } = flaky(async () => used());
  const client = createClient({ baseUrl, fetch });
  const moments: number[] = [];
  for (let count = 0; count < 2; count++) {
    await client.createArticle({ body: { title: 'Limited', content: 'Text.' } });
    moments.push(Date.now());
    await client.readIndex(); // has no limit
  }
  assert.ok(moments[1]! - moments[0]! >= 990);
  assert.equal(requests.length, 4);
  const impatient = createClient({ baseUrl, fetch, retry });
  const before = Date.now();
  for (let count = 0; count < 2; count++) await impatient.createArticle({ body: { title: 'Limited', content: 'Text.' } });
  assert.ok(Date.now() - before < 990);
});

test('expired tokens are refreshed once for all requests', async () => {
  const { fetch, to } = flaky(() => undefined);
  const store = memoryStore();
  const client = createClient({ baseUrl, fetch, store });
  await client.login({ body: { username: user.username, password } });
  const old = store.get()!;
  store.set({ ...old, expires_at: 0 });
  await Promise.all(Array.from({ length: 5 }, () => client.readIdentity()));
  assert.equal(to('/auth/refresh').length, 1);
  assert.notEqual(store.get()?.refresh_token, old.refresh_token);

  store.set({ ...store.get()!, access_token: 'broken' }); // refused by the server only
  await Promise.all(Array.from({ length: 5 }, () => client.readIdentity()));
  assert.equal(to('/auth/refresh').length, 2);
});

test('a session that has ended is forgotten', async () => {
  const store = memoryStore();
  const seen: boolean[] = [];
  const client = createClient({ baseUrl, store, onSession: (tokens) => seen.push(tokens !== null) });
  await client.login({ body: { username: user.username, password } });
  const copy = store.get()!;
  await client.logOut({});
  assert.equal(store.get(), null);
  store.set({ ...copy, expires_at: 0 });
  await assert.rejects(client.readIdentity(), (error) => isError(error, 'not_authenticated'));
  assert.equal(store.get(), null);
  assert.deepEqual(seen, [true, false, false]);
});

test('a wrong password is no reason to refresh', async () => {
  await assert.rejects(
    createClient({ baseUrl }).login({ body: { username: user.username, password: 'wrong' } }),
    (error) => isError(error, 'invalid_credentials'),
  );
});

test('a lost response to a POST is requested again with its key', async () => {
  let lost = 2;
  const { fetch, to } = flaky(async (_, { method }, send) => {
    const response = await send();
    if (method === 'POST' && lost-- > 0) throw new TypeError('the connection was lost');
    return response;
  });
  const client = createClient({ baseUrl, fetch, retry, store: api.session.store });
  const article = await publish('Unrepeated', client);
  const keys = to('/articles').map(({ init }) => new Headers(init.headers).get('Idempotency-Key'));
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
  const found = await api.listArticles({ author: user.username, q: 'Unrepeated' });
  assert.deepEqual(found.map(({ id }) => id), [article.id]);
});

test('a request that may have been carried out is not repeated without a key', async () => {
  const { fetch, to } = flaky(async (_, { method }) => {
    if (method === 'PATCH') throw new TypeError('the connection was lost');
    return new Response(null, { status: 503 });
  });
  const client = createClient({ baseUrl, fetch, retry, store: api.session.store });
  await assert.rejects(client.updateArticle({ article_id: 1, body: {} }), TypeError);
  assert.equal(to('/articles/1').length, 1);
  await assert.rejects(client.readArticle({ article_id: 2 }), { status: 503 });
  assert.equal(to('/articles/2').length, 4);
});

test('a limit is waited for, unless it takes too long', async () => {
  const limited = (seconds: string) => flaky(async () => new Response('{}', { status: 429, headers: { 'Retry-After': seconds } }));
  const long = limited('3600');
  await assert.rejects(createClient({ baseUrl, fetch: long.fetch }).readIndex(), (error: { retryAfter: number }) => error.retryAfter === 3600);
  assert.equal(long.requests.length, 1);
  const short = limited('0');
  await assert.rejects(createClient({ baseUrl, fetch: short.fetch, retry }).updateArticle({ article_id: 1, body: {} }), { status: 429 });
  assert.equal(short.requests.length, 4);
});

test('an upload reports its progress', async () => {
  const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
  const file = new Blob([Buffer.from(pixel, 'base64')], { type: 'image/png' });
  const progress: number[] = [];
  const media = await api.uploadMedia({ file, alt: 'A pixel' }, { onProgress: (fraction) => progress.push(fraction) });
  assert.equal(media.alt, 'A pixel');
  assert.deepEqual([progress[0], progress.at(-1)], [0, 1]);
});

test('other media types are returned as the response', async () => {
  const response = await api.readAtom();
  assert.match(response.headers.get('Content-Type') ?? '', /atom/);
  assert.match(await response.text(), /<feed/);
  const imported = await api.importArticles(
    { body: JSON.stringify({ title: 'Imported', content: 'Text.' }), dry_run: true }, { contentType: 'application/x-ndjson' },
  );
  assert.equal(imported.dry_run, true);
});

test('an API key is sent as the token', async () => {
  const { key } = await api.createApiKey({ body: { name: 'test', password, scopes: ['articles:read'] } });
  const client = createClient({ baseUrl, apiKey: key });
  assert.ok((await client.listArticles({ limit: 1 })).length);
  await assert.rejects(publish('Without the scope', client), (error) => isError(error, 'insufficient_scope'));
});
