import { createClient, type UserPrivate } from 'pressroom-client';
import { shallowRef } from 'vue';

/** The user who is logged in; undefined until the server has answered. */
export const user = shallowRef<UserPrivate | null>();

/** The refresh token is a cookie that scripts cannot read. The access token is in memory. */
export const api = createClient({
  baseUrl: import.meta.env.VITE_API_URL ?? 'http://localhost:8000',
  refreshToken: 'cookie',
  onSession: (tokens) => (tokens ? void loadUser() : (user.value = null)), // also after a login in another tab
});

async function loadUser(): Promise<void> {
  if (!user.value) user.value = await api.readIdentity();
}

if (!(await api.restore())) user.value = null;
