import { readProfile } from '../../generated/conduit/sdk.gen.js';
import { check } from '../check.js';
import type { Session } from './session.js';

export async function run({ api, user }: Session): Promise<void> {
  const path = { username: user.username };
  const { data } = await readProfile({ path, throwOnError: true });
  check(!data.profile.following, 'the profile is read');
  const { error } = await api.POST('/profiles/{username}/follow', { params: { path } });
  check(error !== undefined, 'users cannot follow themselves');
}
