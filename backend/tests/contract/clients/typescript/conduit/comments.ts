import { createComment, deleteComment } from '../../generated/conduit/sdk.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const path = { slug: (await publish('With comments')).slug };
  const { data } = await createComment({ path, body: { comment: { body: 'Indeed.' } }, throwOnError: true });
  const { comments } = dataOf(await api.GET('/articles/{slug}/comments', { params: { path } }));
  check(comments[0]?.id === data.comment.id, 'the comment is listed');
  await deleteComment({ path: { ...path, id: data.comment.id }, throwOnError: true });
}
