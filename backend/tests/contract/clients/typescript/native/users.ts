import { changePassword, deleteUser, readLimits, updateOwnUser } from '../../generated/native/sdk.gen.js';
import type { UserCreate } from '../../generated/native/types.gen.js';
import { check, dataOf } from '../check.js';
import { PASSWORD, type Session } from './session.js';

export async function run({ api, user }: Session): Promise<void> {
  const password: UserCreate['password'] = PASSWORD;
  const { error } = await api.POST('/users', {
    body: { email: user.email, username: user.username, name: user.name, password },
  });
  check(error?.code === 'email_taken' || error?.code === 'username_taken', 'the user exists');

  const own = await api.GET('/users/me');
  const etag: string | null = own.response.headers.get('ETag');
  check(etag !== null && dataOf(own).role === 'author', 'the user reads their account');
  const { data: changed } = await updateOwnUser({ body: { name: 'Ada King' }, throwOnError: true });
  check(changed.name === 'Ada King', 'the name changes');

  const { data: limits } = await readLimits({ path: { user_id: user.id }, throwOnError: true });
  check(limits.limits.some(({ kind }) => kind === 'articles'), 'the user has limits');
  const refused = await changePassword({ body: { current_password: 'wrong', new_password: 'a good passphrase' } });
  check(refused.error?.code === 'incorrect_password', 'the current password is required');
  await deleteUser({ path: { user_id: user.id }, body: { password: PASSWORD }, throwOnError: true });
}
