import { login, updateUser } from '../../generated/conduit/sdk.gen.js';
import { check, dataOf } from '../check.js';
import { PASSWORD, type Session } from './session.js';

export async function run({ api, user }: Session): Promise<void> {
  const { data } = await login({ body: { user: { email: user.email, password: PASSWORD } }, throwOnError: true });
  check(data.user.username === user.username, 'the user logs in');
  const { data: changed } = await updateUser({ body: { user: { bio: 'Programmer' } }, throwOnError: true });
  check(changed.user.bio === 'Programmer', 'the account changes');
  const current = dataOf(await api.GET('/user'));
  check(current.user.email === user.email, 'the user reads their account');
  const { error } = await api.POST('/users/login', { body: { user: { email: user.email, password: 'wrong' } } });
  check(Object.values(error?.errors ?? {}).flat().length > 0, 'errors are listed by field');
}
