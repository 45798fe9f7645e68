import { getMedia, updateMedia, uploadMedia } from '../../generated/native/sdk.gen.js';
import { check, dataOf } from '../check.js';
import type { Session } from './session.js';

/** The smallest PNG: one transparent pixel. */
const PIXEL =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';

export async function run({ api }: Session): Promise<void> {
  const bytes = Uint8Array.from(atob(PIXEL), (character) => character.charCodeAt(0));
  const file = new File([bytes], 'pixel.png', { type: 'image/png' });
  const { data: image } = await uploadMedia({
    body: { file, alt: 'A pixel' },
    requestValidator: undefined, // hey-api's validator expects a string in place of a file
    throwOnError: true,
  });
  check(image.width === 1 && image.alt === 'A pixel', 'the image is stored');
  const path = { media_id: image.id };
  const { data: changed } = await updateMedia({ path, body: { alt: '' }, throwOnError: true });
  const { data: read } = await getMedia({ path, throwOnError: true });
  check(read.alt === changed.alt, 'the alternative text changes');
  const images = dataOf(await api.GET('/media', { params: { query: { limit: 1 } } }));
  check(images[0]?.url === image.url, 'the image is listed');
}
