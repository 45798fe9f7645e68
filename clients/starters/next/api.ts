import { createClient } from 'pressroom-client';

export const api = createClient({ baseUrl: process.env.PRESSROOM_URL ?? 'http://localhost:8000' });
