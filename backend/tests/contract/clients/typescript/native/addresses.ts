import { createAddress, replaceAddress } from '../../generated/native/sdk.gen.js';
import type { AddressInput } from '../../generated/native/types.gen.js';
import { check, dataOf } from '../check.js';
import type { Session } from './session.js';

export async function run({ api, user }: Session): Promise<void> {
  const path = { user_id: user.id };
  const body: AddressInput = { label: 'home', line1: "12 St James's Square", city: 'London', country: 'GB' };
  const { data: created } = await createAddress({ path, body, throwOnError: true });
  const { data: replaced } = await replaceAddress({
    path: { ...path, address_id: created.id },
    body: { ...body, postal_code: 'SW1Y 4JH' },
    throwOnError: true,
  });
  check(replaced.postal_code === 'SW1Y 4JH', 'the address is replaced');
  const listed = dataOf(await api.GET('/users/{user_id}/addresses', { params: { path } }));
  check(listed[0]?.region === null, 'the address is listed');
}
