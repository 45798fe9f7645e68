import { createSecondFactor, listSessions, login, readIdentity, refresh } from '../../generated/native/sdk.gen.js';
import type { SecondFactorRequired, Tokens } from '../../generated/native/types.gen.js';
import { check, dataOf } from '../check.js';
import { PASSWORD, type Session } from './session.js';

/** Return the challenge of a user with a second factor. */
export function challengeOf(error: SecondFactorRequired): string {
  return error.challenge;
}

export async function run({ api, user: { username } }: Session): Promise<void> {
  const { data, error } = await login({ body: { username, password: 'wrong' } });
  check(data === undefined, 'a wrong password is refused');
  switch (error?.code) {
    case 'invalid_credentials':
      break;
    case 'second_factor_required':
      challengeOf(error);
      break;
    case 'limit_reached':
      throw new Error(`limit: ${error.limit}`);
    default:
      throw new Error(error?.message);
  }

  const tokens: Tokens = dataOf(await api.POST('/auth/login', { body: { username, password: PASSWORD } }));
  const type: 'bearer' = tokens.token_type;
  check(type === 'bearer' && tokens.refresh_token !== null, 'the body has a refresh token');
  const { data: next } = await refresh({ body: { refresh_token: tokens.refresh_token }, throwOnError: true });
  check(next.expires_in > 0, 'the token is refreshed');

  const { data: me } = await readIdentity({ throwOnError: true });
  check(me.username === username, 'the user reads their account');
  const { data: sessions } = await listSessions({ query: { limit: 5 }, throwOnError: true });
  check(sessions.some(({ current }) => current), 'one session is the current one');
  const { data: secret } = await createSecondFactor({ body: { password: PASSWORD }, throwOnError: true });
  check(secret.uri.startsWith('otpauth:'), 'the secret has a URI');
}
