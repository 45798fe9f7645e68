import createFetchClient, { type Client } from 'openapi-fetch';
import type { paths } from '../../generated/conduit.js';
import { client } from '../../generated/conduit/client.gen.js';
import { createArticle, register } from '../../generated/conduit/sdk.gen.js';
import type { Article, User } from '../../generated/conduit/types.gen.js';

export const PASSWORD = 'correct horse battery';

/** A user who is logged in with both clients. */
export interface Session {
  api: Client<paths>;
  user: User;
}

export async function signUp(url: string): Promise<Session> {
  const baseUrl = `${url}/api`;
  client.setConfig({ baseUrl, auth: undefined });
  const username = `ts-${crypto.randomUUID().slice(0, 12)}`;
  const body = { user: { username, email: `${username}@example.com`, password: PASSWORD } };
  const { data } = await register({ body, throwOnError: true });
  const header = `Token ${data.user.token}`;
  client.setConfig({ auth: header });
  return { api: createFetchClient<paths>({ baseUrl, headers: { Authorization: header } }), user: data.user };
}

export async function publish(title: string, tagList: string[] = []): Promise<Article> {
  const article = { title, description: 'An essay', body: 'The engine weaves patterns.', tagList };
  const { data } = await createArticle({ body: { article }, throwOnError: true });
  return data.article;
}
