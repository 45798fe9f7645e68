import { createComment, listComments, listReplies, updateComment } from '../../generated/native/sdk.gen.js';
import type { CommentCreate } from '../../generated/native/types.gen.js';
import { check, dataOf } from '../check.js';
import { publish, type Session } from './session.js';

export async function run({ api }: Session): Promise<void> {
  const path = { article_id: (await publish('With comments')).id };
  const body: CommentCreate = { content: '*Indeed.*' };
  const { data: comment } = await createComment({ path, body, throwOnError: true });
  await createComment({ path, body: { content: 'Why?', parent_id: comment.id }, throwOnError: true });
  const { data: threads } = await listComments({ path, query: { sort: 'oldest' }, throwOnError: true });
  check(threads[0]?.replies[0]?.content === 'Why?', 'the thread has a reply');
  const { data: replies } = await listReplies({ path: { comment_id: comment.id }, throwOnError: true });
  check(replies.length === 1, 'the reply is listed');
  const changed = await updateComment({
    path: { comment_id: comment.id }, body: { content: '*Indeed!*' }, throwOnError: true,
  });
  check(changed.data.edited_at !== null, 'the comment is edited');
  const moderated = await api.PATCH('/comments/{comment_id}/moderation', {
    params: { path: { comment_id: comment.id } }, body: { locked: true },
  });
  check(dataOf(moderated).locked, 'the author locks the thread');
  const { error } = await createComment({ path, body: { content: 'So.', parent_id: comment.id } });
  check(error?.code === 'thread_locked', 'the thread is locked');
}
