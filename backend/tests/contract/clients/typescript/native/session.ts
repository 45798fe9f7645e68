import createFetchClient, { type Client } from 'openapi-fetch';
import type { paths } from '../../generated/native.js';
import { client } from '../../generated/native/client.gen.js';
import { createArticle, createUser, login } from '../../generated/native/sdk.gen.js';
import type { ArticleResponse, UserPrivate } from '../../generated/native/types.gen.js';

export const PASSWORD = 'correct horse battery';

/** A user who is logged in with both clients. */
export interface Session {
  api: Client<paths>;
  user: UserPrivate;
}

export async function signUp(url: string): Promise<Session> {
  let token: string | undefined;
  client.setConfig({ baseUrl: url, auth: () => token });
  const username = `ts-${crypto.randomUUID().slice(0, 12)}`;
  const body = { email: `${username}@example.com`, username, name: 'Ada Lovelace', password: PASSWORD };
  const { data: user } = await createUser({ body, throwOnError: true });
  const { data: tokens } = await login({ body: { username, password: PASSWORD }, throwOnError: true });
  token = tokens.access_token;
  const api = createFetchClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
  return { api, user };
}

export async function publish(title: string, tags: string[] = []): Promise<ArticleResponse> {
  const body = { title, content: 'The Analytical Engine weaves patterns.', tags, published: true };
  const { data } = await createArticle({ body, throwOnError: true });
  return data;
}
